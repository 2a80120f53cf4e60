package images_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ipc-cr/ipc-cr/images"
)

// checkFault wants an error that names file and offset; -1 for any offset.
func checkFault(t testing.TB, err error, offset int64) {
	t.Helper()
	bad, ok := errors.AsType[*images.FormatError](err)
	if !ok || !errors.Is(err, images.ErrFormat) {
		t.Errorf("got %v, want a *FormatError", err)
		return
	}
	if bad.File != "the image" || bad.Reason == "" || !strings.HasPrefix(err.Error(), "the image: offset ") {
		t.Errorf("%q does not name the file, the offset and a reason", err)
	}
	if offset >= 0 && bad.Offset != offset {
		t.Errorf("%q names offset %d, want %d", err, bad.Offset, offset)
	}
}

// decodeBoth reads an image with its size known and unknown. Both must agree on
// whether it is one, and any error must name its place in it.
func decodeBoth(t testing.TB, image []byte) ([]queue, error) {
	t.Helper()
	known, err := decode(bytes.NewReader(image), int64(len(image)))
	unknown, unknownErr := decode(bytes.NewReader(image), -1)
	if (err == nil) != (unknownErr == nil) || (err == nil && len(known) != len(unknown)) {
		t.Fatalf("size known: %v, unknown: %v", err, unknownErr)
	}
	for _, err := range []error{err, unknownErr} {
		if bad, ok := errors.AsType[*images.FormatError](err); err != nil && (!ok || bad.Offset < 0 || bad.Offset > int64(len(image))) {
			t.Fatalf("%d bytes: %v", len(image), err)
		}
	}
	return known, err
}

func TestTruncated(t *testing.T) {
	want := criuQueues()["plain"][:2]
	image := wantImage(t, want...)
	ends := map[int]bool{8: true}
	for i := range want {
		ends[len(wantImage(t, want[:i+1]...))] = true
	}
	for cut := range image {
		_, err := decodeBoth(t, image[:cut])
		if ends[cut] != (err == nil) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if err != nil {
			checkFault(t, err, -1)
		}
	}
}

// No flipped bit may be worse than an error or other content.
func TestFlippedBits(t *testing.T) {
	queues := criuQueues()["plain"][:2]
	image := wantImage(t, queues...)
	for i := range image {
		for bit := range 8 {
			flipped := bytes.Clone(image)
			flipped[i] ^= 1 << bit
			got, err := decodeBoth(t, flipped)
			if i < 8 && err == nil {
				t.Errorf("byte %d of the magic numbers, bit %d: accepted", i, bit)
			}
			if err == nil && len(got) == 0 {
				t.Errorf("byte %d, bit %d: nothing read and no error", i, bit)
			}
		}
	}
}

func TestRandomBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		image := []byte(msgMagic)
		for range random.IntN(64) {
			image = append(image, byte(random.Uint32())>>random.IntN(8))
		}
		decodeBoth(t, image)
	}
}

func u32(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func varint(number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), value)
}

func sub(number protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), body)
}

func record(fields ...[]byte) []byte {
	body := join(fields...)
	return join(u32(uint32(len(body))), body)
}

// desc is an ipc_desc_entry with the given fields, all of the value 1.
func desc(numbers ...protowire.Number) (b []byte) {
	for _, n := range numbers {
		b = append(b, varint(n, 1)...)
	}
	return b
}

var wholeDesc = sub(1, desc(1, 2, 3, 4, 5, 6, 7))

// entry is a queue record with that many messages.
func entry(qnum uint64) []byte { return record(wholeDesc, varint(2, 1), varint(3, qnum)) }

func TestRefused(t *testing.T) {
	one := int64(8 + len(entry(1)))
	for name, c := range map[string]struct {
		image  []byte
		offset int64
	}{
		"queue of 4 GiB":       {u32(math.MaxUint32), 8},
		"queue of 4097 bytes":  {join(u32(4097), make([]byte, 4097)), 8},
		"empty queue":          {join(u32(0), make([]byte, 64)), 8},
		"4 billion messages":   {entry(math.MaxUint32), -1},
		"33 bits of messages":  {entry(1 << 32), 8},
		"no protobuf":          {record([]byte("\xff\xff\xff\xff\xff\xff\xff\xff")), 8},
		"field number 0":       {record(wholeDesc, varint(2, 1), []byte{0, 0}, varint(3, 1)), 8},
		"end of no group":      {record(wholeDesc, varint(2, 1), varint(3, 0), []byte{9<<3 | 4}), 8},
		"no desc":              {record(varint(2, 1), varint(3, 0)), 8},
		"no qbytes":            {record(wholeDesc, varint(3, 0)), 8},
		"no qnum":              {record(wholeDesc, varint(2, 1)), 8},
		"desc without id":      {record(sub(1, desc(1, 2, 3, 4, 5, 6)), varint(2, 1), varint(3, 0)), 8},
		"desc without key":     {record(sub(1, desc(2, 3, 4, 5, 6, 7)), varint(2, 1), varint(3, 0)), 8},
		"desc of other type":   {record(varint(1, 1), varint(2, 1), varint(3, 0)), 8},
		"qnum of other type":   {record(wholeDesc, varint(2, 1), sub(3, nil)), 8},
		"desc cut off":         {record([]byte{1<<3 | 2, 100}, varint(2, 1), varint(3, 0)), 8},
		"mtype 0":              {join(entry(1), record(varint(1, 0), varint(2, 0))), one},
		"mtype -1":             {join(entry(1), record(varint(1, math.MaxUint64), varint(2, 0))), one},
		"mtype -2^63":          {join(entry(1), record(varint(1, 1<<63), varint(2, 0))), one},
		"message of 2 GiB":     {join(entry(1), record(varint(1, 1), varint(2, 1<<31))), one},
		"message of 2 GiB - 1": {join(entry(1), record(varint(1, 1), varint(2, 1<<31-1))), one},
		"message of 2^63":      {join(entry(1), record(varint(1, 1), varint(2, 1<<63))), one},
		"no mtype":             {join(entry(1), record(varint(2, 0), varint(7, 1))), one},
		"no msize":             {join(entry(1), record(varint(1, 1), varint(7, 1))), one},
		"message record 4 GiB": {join(entry(1), u32(math.MaxUint32), make([]byte, 4)), one},
		"message record short": {join(entry(1), u32(3), []byte{8, 1, 16, 0, 0, 0, 0}), one},
		"payload missing":      {join(entry(1), record(varint(1, 1), varint(2, 8)), make([]byte, 7)), one},
		"padding missing":      {join(entry(1), record(varint(1, 1), varint(2, 7)), make([]byte, 7)), one},
		"second of 2 missing":  {join(entry(2), wantMessage(t, message{1, make([]byte, 16)})), one + 24},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeBoth(t, join([]byte(msgMagic), c.image))
			checkFault(t, err, c.offset)
		})
	}
}

func TestOtherMagic(t *testing.T) {
	for name, head := range map[string]string{
		"nothing":    "",
		"7 bytes":    msgMagic[:7],
		"ipcns-var":  "\x19\x43\x56\x54\x07\x50\x11\x53",
		"big-endian": "\x54\x56\x43\x19\x55\x45\x37\x37",
		"text":       "#!/bin/sh\n",
	} {
		_, err := decodeBoth(t, []byte(head))
		if checkFault(t, err, -1); !strings.Contains(err.Error(), "CRIU") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What another version of CRIU or another encoder may write of the same queue.
func TestAcceptedForms(t *testing.T) {
	long := []byte{1 << 3, 0x81, 0x80, 0x00} // field 1, the value 1 in more bytes than it needs
	for name, image := range map[string][]byte{
		"usual":                 join(entry(1), record(varint(1, 1), varint(2, 0))),
		"reversed":              join(record(varint(3, 1), varint(2, 1), sub(1, desc(7, 6, 5, 4, 3, 2, 1))), record(varint(2, 0), varint(1, 1))),
		"unknown fields":        join(record(varint(99, 5), wholeDesc, varint(2, 1), sub(98, []byte("new")), varint(3, 1)), record(varint(1, 1), varint(2, 0), sub(3, nil))),
		"unknown fixed":         join(record(wholeDesc, varint(2, 1), protowire.AppendFixed32(protowire.AppendTag(nil, 50, protowire.Fixed32Type), 1), varint(3, 1)), record(varint(1, 1), varint(2, 0))),
		"unknown field in desc": join(record(sub(1, desc(1, 2, 3, 4, 5, 6, 7, 8, 40)), varint(2, 1), varint(3, 1)), record(varint(1, 1), varint(2, 0))),
		"twice, the last counts": join(record(wholeDesc, varint(2, 9), varint(2, 1), varint(3, 7), varint(3, 1)),
			record(varint(1, 5), varint(1, 1), varint(2, 3), varint(2, 0))),
		"long varint": join(entry(1), record(long, varint(2, 0))),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeBoth(t, join([]byte(msgMagic), image))
			want := queue{allSet(1), []message{{1, []byte{}}}}
			if err != nil || len(got) != 1 || got[0].Queue != want.Queue || len(got[0].Messages) != 1 || got[0].Messages[0].Type != 1 {
				t.Errorf("read %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

// No length in an image makes the reader allocate before the bytes are there,
// nor does the size that an archive claims.
func TestAllocatesWhatIsThere(t *testing.T) {
	const bound = 4 << 20
	head := []byte(msgMagic)
	huge := record(varint(1, 1), varint(2, 1<<31-1))
	for name, image := range map[string][]byte{
		"record length": join(head, u32(math.MaxUint32)),
		"qnum":          join(head, entry(math.MaxUint32)),
		"msize":         join(head, entry(1), huge),
		"msize, 1 MiB":  join(head, entry(1), huge, make([]byte, 1<<20)),
	} {
		for _, size := range []int64{-1, int64(len(image)), 1 << 40, math.MaxInt64} {
			spent := allocated(func() {
				if _, err := decode(bytes.NewReader(image), size); !errors.Is(err, images.ErrFormat) {
					t.Errorf("%s: %v, want ErrFormat", name, err)
				}
			})
			if spent > bound {
				t.Errorf("%s, size %d: %d bytes allocated for an image of %d", name, size, spent, len(image))
			}
		}
	}
}

// A message may not be read whole before it is refused.
func TestRefusesBeforeReading(t *testing.T) {
	const claimed = 1 << 28
	image := join([]byte(msgMagic), entry(1), record(varint(1, 1), varint(2, claimed+1)))
	source := &zeros{r: bytes.NewReader(image)}
	_, err := decode(source, claimed)
	checkFault(t, err, int64(8+len(entry(1))))
	if source.given > 1<<20 {
		t.Errorf("%d bytes read", source.given)
	}
}

// zeros gives a reader's bytes, then zeros without end.
type zeros struct {
	r     io.Reader
	given int
}

func (z *zeros) Read(b []byte) (int, error) {
	n, err := z.r.Read(b)
	if errors.Is(err, io.EOF) {
		clear(b)
		n = len(b)
	}
	z.given += n
	return n, nil
}

// allocated returns the bytes that fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
