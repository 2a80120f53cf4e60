package walk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf/btf"
)

// wanted are the members of the kernel's structures that walk.c uses; of those
// without any, the size.
var wanted = map[string][]string{
	"task_struct":   {"nsproxy"},
	"nsproxy":       {"ipc_ns"},
	"ipc_namespace": {"ids"},
	"ipc_ids":       {"ipcs_idr"},
	"idr":           {"idr_rt"},
	"xarray":        {"xa_head"},
	"xa_node":       {"shift", "slots"},
	"kern_ipc_perm": {"deleted", "id"},
	"msg_queue":     {"q_perm", "q_cbytes", "q_qnum", "q_messages"},
	"list_head":     {"next", "prev"},
	"msg_msg":       {"m_list", "m_type", "m_ts", "next"},
	"msg_msgseg":    {"next"},
}

// smallTypes returns of the kernel's types what walk.c needs of them, about 1 KB
// instead of 5 MB. It is what takes the time when the program is loaded.
func smallTypes() ([]byte, error) {
	all, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the types of the kernel: %w", err)
	}
	c := cutter{done: map[*btf.Struct]*btf.Struct{}}
	builder := &btf.Builder{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if err := c.add(builder, all, name); err != nil {
			return nil, err
		}
	}
	content, err := builder.Marshal(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("write the types of the kernel: %w", err)
	}
	return content, nil
}

// specOf parses what smallTypes returned.
func specOf(content []byte) (*btf.Spec, error) {
	return btf.LoadSpecFromReader(bytes.NewReader(content))
}

// cutter copies structures without what is not wanted of them.
type cutter struct {
	done map[*btf.Struct]*btf.Struct
}

// add adds all structures of a name. There may be several, and the loader knows
// how to tell them apart.
func (c *cutter) add(builder *btf.Builder, all *btf.Spec, name string) error {
	types, err := all.AnyTypesByName(name)
	if errors.Is(err, btf.ErrNotFound) {
		return fmt.Errorf("the kernel has no struct %s: %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("look up struct %s: %w", name, err)
	}
	for _, t := range types {
		if s, ok := t.(*btf.Struct); ok {
			if _, err := builder.Add(c.structure(s)); err != nil {
				return fmt.Errorf("add struct %s: %w", name, err)
			}
		}
	}
	return nil
}

func (c *cutter) structure(s *btf.Struct) *btf.Struct {
	if small, ok := c.done[s]; ok {
		return small
	}
	small := &btf.Struct{Name: s.Name, Size: s.Size}
	c.done[s] = small
	small.Members = c.members(s.Members, wanted[s.Name])
	return small
}

// members leaves out what is not wanted. A member without a name is a part of the
// structure around it.
func (c *cutter) members(all []btf.Member, names []string) []btf.Member {
	var small []btf.Member
	for _, m := range all {
		if m.Name == "" {
			m.Type = c.nameless(m.Type, names)
		} else if slices.Contains(names, m.Name) {
			m.Type = c.shallow(m.Type)
		} else {
			m.Type = nil
		}
		if m.Type != nil {
			small = append(small, m)
		}
	}
	return small
}

func (c *cutter) nameless(t btf.Type, names []string) btf.Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		if members := c.members(t.Members, names); members != nil {
			return &btf.Struct{Size: t.Size, Members: members}
		}
	case *btf.Union:
		if members := c.members(t.Members, names); members != nil {
			return &btf.Union{Size: t.Size, Members: members}
		}
	}
	return nil
}

// shallow is a member's type without what it points to: the loader asks for its
// kind and its size.
func (c *cutter) shallow(t btf.Type) btf.Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Pointer:
		return &btf.Pointer{Target: &btf.Void{}}
	case *btf.Array:
		return &btf.Array{Index: t.Index, Type: c.shallow(t.Type), Nelems: t.Nelems}
	case *btf.Struct:
		return c.structure(t)
	default:
		return t
	}
}
