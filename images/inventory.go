package images

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// inventoryMagic is INVENTORY_MAGIC of criu/include/magic.h. No other number
// stands before it: this file tells the version of the others.
const inventoryMagic = 0x58313116

// inventoryRootIDs is the number of the field root_ids in CRIU's
// images/inventory.proto.
const inventoryRootIDs = 3

const inventoryName = "inventory.img"

// InventoryIPCNumber returns the number that a dump gives to the IPC namespace in
// which CRIU itself ran: root_ids.ipc_ns_id in inventory.img. Where it equals
// TaskIPCNumber, CRIU takes the namespace for its own and restores the tasks
// into the one that it then runs in. Errors as of TaskIPCNumber.
func (d *Dir) InventoryIPCNumber() (uint32, error) {
	s, root, err := d.readInventory()
	if err != nil {
		return 0, err
	}
	return s.ipcNumber(root.content, root.end)
}

func (d *Dir) readInventory() (*small, spot, error) {
	s, err := d.readSmall(inventoryName, inventoryMagic)
	if err != nil {
		return nil, spot{}, err
	}
	root, err := s.locate(s.body, s.end, inventoryRootIDs, protowire.BytesType)
	return s, root, err
}

// SetInventoryIPCNumber changes root_ids.ipc_ns_id in inventory.img and nothing
// else: all other fields, those of newer versions of CRIU included, keep their
// bytes and their order. The file is replaced by one of the same owner and mode,
// at once (fsync, rename); a kill leaves the old file or the new one, and perhaps a
// temporary for Sweep. The directory should be locked.
//
// It needs the right to write to the directory, and CAP_CHOWN where the file
// belongs to somebody else. Errors as of TaskIPCNumber.
func (d *Dir) SetInventoryIPCNumber(n uint32) error {
	if n == 0 {
		return fmt.Errorf("%s: 0 is no number of a namespace", d.join(inventoryName))
	}
	s, root, err := d.readInventory()
	if err != nil {
		return err
	}
	changed, err := s.withIPCNumber(root, n)
	if err != nil {
		return err
	}
	return d.replace(inventoryName, changed)
}

// withIPCNumber returns the file's bytes with another number in root_ids. The
// lengths around it change with the length of its varint.
func (s *small) withIPCNumber(root spot, n uint32) ([]byte, error) {
	at, err := s.locate(root.content, root.end, idsIPC, protowire.VarintType)
	if err != nil {
		return nil, err
	}
	if len(s.file) == maxSmall {
		return nil, fault(s.name, maxSmall, "longer than %d bytes", maxSmall-1)
	}
	ids := append([]byte{}, s.file[root.content:at.value]...)
	ids = protowire.AppendVarint(ids, uint64(n))
	ids = append(ids, s.file[at.end:root.end]...)

	message := append([]byte{}, s.file[s.body:root.value]...)
	message = protowire.AppendBytes(message, ids)
	message = append(message, s.file[root.end:s.end]...)
	file := append([]byte{}, s.file[:s.body-4]...)
	file = binary.LittleEndian.AppendUint32(file, uint32(len(message)))
	file = append(file, message...)
	return append(file, s.file[s.end:]...), nil
}

// replace gives a regular file of the directory new content, at once.
func (d *Dir) replace(name string, content []byte) error {
	var old unix.Stat_t
	if err := unix.Fstatat(d.fd(), name, &old, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", d.join(name), err)
	}
	temp := name + tempSuffix
	fd, err := unix.Openat(d.fd(), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", d.join(temp), err)
	}
	err = fill(os.NewFile(uintptr(fd), d.join(temp)), content, &old)
	if err == nil {
		err = unix.Renameat(d.fd(), temp, d.fd(), name)
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd(), temp, 0)
		return fmt.Errorf("replace %s: %w", d.join(name), err)
	}
	return d.sync()
}

// fill writes a file to the disk, owned and protected like another. The owner
// goes first: chown(2) may clear bits of the mode.
func fill(f *os.File, content []byte, like *unix.Stat_t) error {
	_, err := f.Write(content)
	if err == nil && (int(like.Uid) != os.Geteuid() || int(like.Gid) != os.Getegid()) {
		err = f.Chown(int(like.Uid), int(like.Gid))
	}
	if err == nil {
		err = unix.Fchmod(int(f.Fd()), like.Mode&0o7777)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Void makes the images of namespace number n incomplete, so that nobody takes
// them for a checkpoint any more: ipc-cr's JSON file and ipcns-var, without which
// CRIU restores nothing, are removed. None is no error. The directory should be
// locked.
func (d *Dir) Void(n uint32) error {
	for _, name := range []string{ManifestName(n), FileName(VarKind, n)} {
		if err := unix.Unlinkat(d.fd(), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the old %s: %w", d.join(name), err)
		}
	}
	return d.sync()
}
