package images

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxSmall bounds the files that are read whole for one number in them:
// inventory.img, ids-*.img and the head of pstree.img. CRIU's are below 200
// bytes.
const maxSmall = 64 << 10

// small is such a file with its first record.
type small struct {
	name string
	file []byte
	body int // where the record's message begins; its length stands in the 4 bytes before
	end  int // where it ends; what follows are records that nobody here needs
}

// readSmall reads a file of the directory up to maxSmall bytes and takes the
// magic numbers and the first record apart.
func (d *Dir) readSmall(name string, magics ...uint32) (*small, error) {
	f, _, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.join(name), err)
	}
	return parseSmall(name, b, magics...)
}

func parseSmall(name string, b []byte, magics ...uint32) (*small, error) {
	at := 0
	for _, want := range magics {
		if len(b) < at+4 {
			return nil, fault(name, int64(len(b)), "truncated: no magic number of a CRIU image")
		}
		if got := binary.LittleEndian.Uint32(b[at:]); got != want {
			return nil, fault(name, int64(at), "magic number %#x instead of %#x", got, want)
		}
		at += 4
	}
	if len(b) < at+4 {
		return nil, fault(name, int64(len(b)), "truncated: no record")
	}
	size := binary.LittleEndian.Uint32(b[at:])
	at += 4
	if uint64(size) > uint64(len(b)-at) {
		return nil, fault(name, int64(at-4), "record of %d bytes: %d are there (and %d is the limit)", size, len(b)-at, maxSmall)
	}
	return &small{name: name, file: b, body: at, end: at + int(size)}, nil
}

// spot is a field of a message: where its value begins, the length of a
// bytes field included, where the content after that length begins, and where it
// ends. All are offsets in the file.
type spot struct{ value, content, end int }

// locate finds the only field of a number among the fields between two offsets
// of the file. A field that is there twice would be merged by some readers and
// replaced by others (protobuf's encoding, "Last One Wins"): CRIU writes none,
// so it is refused.
func (s *small) locate(from, to int, number protowire.Number, wire protowire.Type) (spot, error) {
	var found spot
	for at := from; at < to; {
		n, w, size := protowire.ConsumeTag(s.file[at:to])
		if size < 0 {
			return spot{}, fault(s.name, int64(at), "%v", protowire.ParseError(size))
		}
		value := at + size
		size = protowire.ConsumeFieldValue(n, w, s.file[value:to])
		switch {
		case size < 0:
			return spot{}, fault(s.name, int64(value), "field %d: %v", n, protowire.ParseError(size))
		case n != number:
		case w != wire:
			return spot{}, fault(s.name, int64(at), "field %d has wire type %d instead of %d", n, w, wire)
		case found.end != 0:
			return spot{}, fault(s.name, int64(at), "field %d is there twice", n)
		default:
			found = spot{value: value, content: value, end: value + size}
		}
		at = value + size
	}
	if found.end == 0 {
		return spot{}, fault(s.name, int64(from), "field %d is missing", number)
	}
	if wire == protowire.BytesType {
		content, _ := protowire.ConsumeBytes(s.file[found.value:found.end])
		found.content = found.end - len(content)
	}
	return found, nil
}

// number reads the value of a uint32 field.
func (s *small) number(at spot) (uint32, error) {
	value, _ := protowire.ConsumeVarint(s.file[at.value:at.end])
	if value > math.MaxUint32 {
		return 0, fault(s.name, int64(at.value), "%d does not fit 32 bits", value)
	}
	return uint32(value), nil
}

// uint32s returns the uint32 fields between two offsets, for a message of
// nothing else; what has another type or does not fit is left out.
func (s *small) uint32s(from, to int) (values []uint32) {
	_ = fields(s.file[from:to], func(_ protowire.Number, value uint64) error {
		if value <= math.MaxUint32 {
			values = append(values, uint32(value))
		}
		return nil
	}, nil)
	return values
}
