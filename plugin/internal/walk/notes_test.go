package walk

import (
	"encoding/binary"
	"testing"
)

// note is one of elf(5), padded.
func note(kind uint32, name, desc string) (b []byte) {
	for _, n := range []uint32{uint32(len(name)), uint32(len(desc)), kind} {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	for _, text := range []string{name, desc} {
		b = append(b, text...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

func TestBuildID(t *testing.T) {
	salt, id := note(0x100, "Linux\x00", "salt!"), note(3, "GNU\x00", "0123456789abcdefghij")
	both := append(salt, id...)
	for name, c := range map[string]struct {
		notes []byte
		want  bool
	}{
		"behind another": {both, true}, "alone": {id, true}, "without": {both[:len(both)-len(id)], false}, "none": {nil, false},
		"empty id": {note(3, "GNU\x00", ""), false}, "another's": {note(3, "Xen\x00", "0123"), false},
		"absurd length": {append(binary.NativeEndian.AppendUint32(nil, 1<<32-1), id...), false},
	} {
		if got := hasBuildID(c.notes); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for cut := range id {
		if hasBuildID(id[:cut]) {
			t.Errorf("cut off after %d bytes of %d: found", cut, len(id))
		}
	}
}
