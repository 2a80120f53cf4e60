package images

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/checkpoint-restore/go-criu/v7/magic"
)

// headerLen is the length of the two magic numbers at the head of an image.
const headerLen = 8

// imgCommon opens every image (criu/include/magic.h, IMG_COMMON_MAGIC).
const imgCommon = 0x54564319

// magics are the magic numbers of the kinds, as criu/include/magic.h has them. A
// test holds them against go-criu's table, which takes too long to build for
// two numbers.
var magics = map[string]uint32{MsgKind: 0x55453737, VarKind: 0x53115007, SemKind: 0x59573019, ShmKind: 0x46283044}

// header returns the two magic numbers of a kind.
func header(kind string) [headerLen]byte {
	var b [headerLen]byte
	binary.LittleEndian.PutUint32(b[:4], imgCommon)
	binary.LittleEndian.PutUint32(b[4:], magics[kind])
	return b
}

// WriteHeader writes the magic numbers that open an image of a kind.
func WriteHeader(w io.Writer, kind string) error {
	b := header(kind)
	_, err := w.Write(b[:])
	return err
}

// checkHeader compares the head of a file with what kind asks for.
func checkHeader(file string, got []byte, kind string) error {
	want := header(kind)
	if len(got) < headerLen {
		return fault(file, int64(len(got)), "truncated: %d bytes where the magic numbers of a CRIU image stand", len(got))
	}
	if [headerLen]byte(got) == want {
		return nil
	}
	return fault(file, 0, "not a CRIU %s image: magic %s instead of %s", kind, describeMagic(got), describeMagic(want[:]))
}

func describeMagic(b []byte) string {
	common, kind := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	name, known := magic.LoadMagic().ByValue[uint64(kind)]
	if !known {
		return fmt.Sprintf("%#x %#x", common, kind)
	}
	return fmt.Sprintf("%#x %#x (%s)", common, kind, name)
}

// KindOf tells which kind of image a stream is, without consuming anything; ""
// for none that this package knows.
func KindOf(r interface{ Peek(int) ([]byte, error) }) string {
	head, err := r.Peek(headerLen)
	if err != nil {
		return ""
	}
	for kind := range magics {
		if header(kind) == [headerLen]byte(head) {
			return kind
		}
	}
	return ""
}
