package images

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields walks a protobuf message. varint and bytes are called for the fields of
// those wire types, bytes may be nil; other fields are skipped, as protobuf
// wants of those that a newer writer added.
func fields(b []byte, varint func(protowire.Number, uint64) error, bytes func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		n, err := field(b, number, wire, varint, bytes)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func field(b []byte, number protowire.Number, wire protowire.Type,
	varint func(protowire.Number, uint64) error, bytes func(protowire.Number, []byte) error,
) (n int, err error) {
	switch {
	case wire == protowire.VarintType:
		value, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		return n, varint(number, value)
	case wire == protowire.BytesType && bytes != nil:
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		return n, bytes(number, value)
	}
	if n = protowire.ConsumeFieldValue(number, wire, b); n < 0 {
		return 0, protowire.ParseError(n)
	}
	return n, nil
}

// numbers collects the uint32 fields of a message whose fields 1 to len(dst) are
// all required. Fields beyond are ignored.
type numbers struct {
	dst  []*uint32
	seen uint32
}

func (c *numbers) varint(number protowire.Number, value uint64) error {
	i := int(number) - 1
	if i >= len(c.dst) || c.dst[i] == nil {
		return nil
	}
	if value > math.MaxUint32 {
		return fmt.Errorf("field %d: %d does not fit 32 bits", number, value)
	}
	*c.dst[i] = uint32(value)
	c.seen |= 1 << i
	return nil
}

func (c *numbers) complete() error {
	for i, dst := range c.dst {
		if dst != nil && c.seen&(1<<i) == 0 {
			return fmt.Errorf("field %d is missing", i+1)
		}
	}
	return nil
}

// usualEntry reads an ipc_msg_entry whose fields stand in their usual order, as
// everybody writes them: there can be very many queues. false sends the caller
// the slow way.
func usualEntry(b []byte, q *Queue) bool {
	if len(b) < 2 || b[0] != entryDesc<<3|byte(protowire.BytesType) || int(b[1]) > len(b)-2 || b[1] > 0x7f {
		return false
	}
	desc, rest := b[2:2+b[1]], b[2+b[1]:]
	return usual(desc, 1, &q.Key, &q.UID, &q.GID, &q.CUID, &q.CGID, &q.Mode, &q.ID) &&
		usual(rest, entryQBytes, &q.QBytes, &q.QNum)
}

// usual reads uint32 fields numbered from first on, in their order and nothing
// else.
func usual(b []byte, first byte, dst ...*uint32) bool {
	for i, d := range dst {
		if len(b) < 2 || b[0] != (first+byte(i))<<3 {
			return false
		}
		value, n := protowire.ConsumeVarint(b[1:])
		if n < 0 || value > math.MaxUint32 {
			return false
		}
		*d = uint32(value)
		b = b[1+n:]
	}
	return len(b) == 0
}

func parseDesc(b []byte, q *Queue) error {
	c := numbers{dst: []*uint32{&q.Key, &q.UID, &q.GID, &q.CUID, &q.CGID, &q.Mode, &q.ID}}
	if err := fields(b, c.varint, nil); err != nil {
		return err
	}
	return c.complete()
}

func parseEntry(b []byte, q *Queue) error {
	if usualEntry(b, q) {
		return nil
	}
	*q = Queue{}
	hasDesc := false
	c := numbers{dst: []*uint32{nil, &q.QBytes, &q.QNum}}
	err := fields(b, c.varint, func(number protowire.Number, value []byte) error {
		if number != entryDesc {
			return nil
		}
		hasDesc = true
		return parseDesc(value, q)
	})
	switch {
	case err != nil:
		return err
	case !hasDesc:
		return fmt.Errorf("field %d is missing", entryDesc)
	}
	return c.complete()
}

// parseMessage reads an ipc_msg, the usual one the short way too.
func parseMessage(b []byte, m *Message) error {
	var mtype, msize uint64
	if !parseUsual(b, &mtype, &msize) {
		if err := parseUnusual(b, &mtype, &msize); err != nil {
			return err
		}
	}
	if msize > math.MaxInt32 {
		return fmt.Errorf("message size %d is beyond what a kernel can hold", msize)
	}
	m.Type, m.Size = int64(mtype), uint32(msize)
	return nil
}

// usualHead reads the record of a message, length included, if it is all there
// and nothing about it is unusual. It returns the record's length, or 0.
func usualHead(b []byte, m *Message) int {
	const longest = 4 + 1 + 9 + 1 + 5 // mtype has 63 bits, msize 32
	if len(b) < longest {
		return 0
	}
	length := binary.LittleEndian.Uint32(b)
	if length > longest-4 {
		return 0
	}
	var mtype, msize uint64
	if !parseUsual(b[4:4+length], &mtype, &msize) || int64(mtype) < 1 || msize > math.MaxInt32 {
		return 0
	}
	m.Type, m.Size = int64(mtype), uint32(msize)
	return 4 + int(length)
}

func parseUsual(b []byte, mtype, msize *uint64) bool {
	if len(b) < 4 || b[0] != msgType<<3 {
		return false
	}
	value, n := protowire.ConsumeVarint(b[1:])
	if n < 0 || len(b) < n+3 || b[1+n] != msgSize<<3 {
		return false
	}
	*mtype = value
	value, m := protowire.ConsumeVarint(b[n+2:])
	*msize = value
	return m > 0 && n+m+2 == len(b)
}

func parseUnusual(b []byte, mtype, msize *uint64) error {
	seen := 0
	err := fields(b, func(number protowire.Number, value uint64) error {
		switch number {
		case msgType:
			*mtype, seen = value, seen|msgType
		case msgSize:
			*msize, seen = value, seen|msgSize
		}
		return nil
	}, nil)
	switch {
	case err != nil:
		return err
	case seen&msgType == 0:
		return fmt.Errorf("field %d is missing", msgType)
	case seen&msgSize == 0:
		return fmt.Errorf("field %d is missing", msgSize)
	}
	return nil
}
