package nsenter

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// noID is (uid_t)-1: "leave unchanged" to setresuid(2), "not mapped" in
// uid_map, and never the id of anybody.
const noID = math.MaxUint32

// Extent is a line of uid_map or gid_map (user_namespaces(7)): Count ids that
// follow each other, from Inside in the user namespace, from Outside as the
// reader of the file sees them.
type Extent struct {
	Inside, Outside, Count uint32
}

// IDMap translates ids between a user namespace and the calling process.
type IDMap []Extent

// In translates an id as the caller sees it to the one inside; ok is false if
// it has no mapping. 4294967295 never has one.
func (m IDMap) In(outside uint32) (inside uint32, ok bool) {
	for _, e := range m {
		if id, ok := shift(outside, e.Outside, e.Inside, e.Count); ok {
			return id, true
		}
	}
	return noID, false
}

// Out translates an id inside to the one the caller sees; ok is false if it
// has no mapping. 4294967295 never has one.
func (m IDMap) Out(inside uint32) (outside uint32, ok bool) {
	for _, e := range m {
		if id, ok := shift(inside, e.Inside, e.Outside, e.Count); ok {
			return id, true
		}
	}
	return noID, false
}

// shift computes in 64 bits: what would wrap around is not in the range.
func shift(id, from, to, count uint32) (uint32, bool) {
	if id == noID || id < from || id-from >= count {
		return 0, false
	}
	moved := uint64(to) + uint64(id-from)
	return uint32(moved), moved < noID
}

// Identity reports whether every id that has a mapping maps to itself. In and
// Out must be asked all the same: not every id has one. An empty map is none.
func (m IDMap) Identity() bool {
	for _, e := range m {
		if e.Inside != e.Outside {
			return false
		}
	}
	return len(m) > 0
}

// restrictedIdentity maps each id inside m to itself.
func (m IDMap) restrictedIdentity() IDMap {
	same := make(IDMap, len(m))
	for i, e := range m {
		same[i] = Extent{Inside: e.Inside, Outside: e.Inside, Count: e.Count}
	}
	return same
}

// parseIDMap reads uid_map as kernel/user_namespace.c prints it (uid_m_show,
// "%10u %10u %10u\n") and accepts nothing that map_write would have refused.
func parseIDMap(text []byte) (IDMap, error) {
	var m IDMap
	for line := range bytes.Lines(text) {
		e, err := parseExtent(line)
		if err == nil {
			err = m.checkFits(e)
		}
		if err != nil {
			return nil, fmt.Errorf("id map, line %d %.64q: %w", len(m)+1, line, err)
		}
		m = append(m, e)
	}
	return m, nil
}

func parseExtent(line []byte) (Extent, error) {
	line, ok := bytes.CutSuffix(line, []byte("\n"))
	if !ok {
		return Extent{}, fmt.Errorf("has no end")
	}
	fields := bytes.Fields(line)
	if len(fields) != 3 {
		return Extent{}, fmt.Errorf("has %d fields, not 3", len(fields))
	}
	var numbers [3]uint32
	for i, field := range fields {
		n, err := strconv.ParseUint(string(field), 10, 32)
		if err != nil {
			return Extent{}, err
		}
		numbers[i] = uint32(n)
	}
	return Extent{numbers[0], numbers[1], numbers[2]}, nil
}

// checkFits refuses an extent that is empty, passes the last id, or overlaps
// another. Outside is 4294967295 where the reader cannot see the ids: that is
// no fault of the map, In and Out find nothing there.
func (m IDMap) checkFits(e Extent) error {
	if e.Count == 0 {
		return fmt.Errorf("is empty")
	}
	if passesLast(e.Inside, e.Count) || (e.Outside != noID && passesLast(e.Outside, e.Count)) {
		return fmt.Errorf("passes the last id")
	}
	for _, other := range m {
		if overlap(e.Inside, e.Count, other.Inside, other.Count) {
			return fmt.Errorf("overlaps another line")
		}
		seen := e.Outside != noID && other.Outside != noID
		if seen && overlap(e.Outside, e.Count, other.Outside, other.Count) {
			return fmt.Errorf("overlaps another line")
		}
	}
	return nil
}

func passesLast(first, count uint32) bool { return uint64(first)+uint64(count) > noID }

func overlap(a, aCount, b, bCount uint32) bool {
	return uint64(a) < uint64(b)+uint64(bCount) && uint64(b) < uint64(a)+uint64(aCount)
}
