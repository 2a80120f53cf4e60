package images

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// The magic numbers of criu/include/magic.h: PSTREE_MAGIC and IDS_MAGIC.
const (
	pstreeMagic = 0x50273030
	idsMagic    = 0x54432030
)

// Field numbers of CRIU's images/pstree.proto (pstree_entry) and
// images/core.proto (task_kobj_ids_entry).
const (
	pstreePID = 1
	idsIPC    = 7
)

const pstreeName = "pstree.img"

// TaskIPCNumber returns the number that a dump gives to the IPC namespace of its
// tasks: the N of ipcns-var-N.img. It is the one of the root task, the first in
// pstree.img, as ids-PID.img has it (ipc_ns_id of images/core.proto): CRIU dumps
// no tree with a second IPC namespace, and other ids files may be left from an
// older dump.
//
// The error is fs.ErrNotExist where a file is missing, ErrFormat where one is no
// image of CRIU's.
func (d *Dir) TaskIPCNumber() (uint32, error) {
	ids, err := d.rootTaskIDs()
	if err != nil {
		return 0, err
	}
	return ids.ipcNumber(ids.body, ids.end)
}

// rootTaskIDs reads the ids of the root task.
func (d *Dir) rootTaskIDs() (*small, error) {
	tree, err := d.readSmall(pstreeName, imgCommon, pstreeMagic)
	if err != nil {
		return nil, err
	}
	at, err := tree.locate(tree.body, tree.end, pstreePID, protowire.VarintType)
	if err != nil {
		return nil, err
	}
	pid, err := tree.number(at)
	if err != nil {
		return nil, err
	}
	return d.readSmall(fmt.Sprintf("ids-%d.img", pid), imgCommon, idsMagic)
}

// ipcNumber reads ipc_ns_id of a task_kobj_ids_entry between two offsets. 0 is
// what no namespace has (criu/namespaces.c counts from 1).
func (s *small) ipcNumber(from, to int) (uint32, error) {
	at, err := s.locate(from, to, idsIPC, protowire.VarintType)
	if err != nil {
		return 0, err
	}
	n, err := s.number(at)
	if err == nil && n == 0 {
		return 0, fault(s.name, int64(at.value), "the IPC namespace has number 0")
	}
	return n, err
}

// UnusedIPCNumber returns a number that neither the root task nor CRIU itself
// has for anything, and no IPC image in the directory has in its name. Errors as
// of TaskIPCNumber.
func (d *Dir) UnusedIPCNumber() (uint32, error) {
	ids, err := d.rootTaskIDs()
	if err != nil {
		return 0, err
	}
	inventory, root, err := d.readInventory()
	if err != nil {
		return 0, err
	}
	used, err := d.Numbers()
	if err != nil {
		return 0, err
	}
	used = append(used, ids.uint32s(ids.body, ids.end)...)
	used = append(used, inventory.uint32s(root.content, root.end)...)
	return unused(used), nil
}

// unused returns the number after the largest, or if there is none a smaller
// one.
func unused(used []uint32) uint32 {
	n := slices.Max(used) + 1
	for n == 0 || slices.Contains(used, n) {
		n++
	}
	return n
}
