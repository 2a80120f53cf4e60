package images_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
)

var benchSizes = []int{1, 64, 1024, 64 << 10}

// benchMessages is how many messages a pass goes over.
const benchMessages = 1000

func fill(block *images.Block, size int) {
	block.Reset()
	block.Queue(&images.Queue{ID: 1, QNum: benchMessages})
	for i := range benchMessages {
		binary.NativeEndian.PutUint64(block.Room(size), uint64(i+1))
		block.Message(size)
	}
}

// skim reads a part of an image and makes ready what msgsnd(2) gets.
func skim(tb testing.TB, r *images.Reader) (sent int) {
	if _, err := r.Queue(); err != nil {
		tb.Fatal(err)
	}
	var bufs [32][]byte
	for {
		n, err := r.Msgbufs(bufs[:])
		if errors.Is(err, io.EOF) {
			return sent
		}
		if err != nil {
			tb.Fatal(err)
		}
		for _, buf := range bufs[:n] {
			sent += len(buf)
		}
	}
}

// A pass over a thousand messages allocates for the queue at most.
func TestNoAllocationPerMessage(t *testing.T) {
	for _, size := range benchSizes {
		var block images.Block
		fill(&block, size)
		if n := testing.AllocsPerRun(10, func() { fill(&block, size) }); n > 0 {
			t.Errorf("messages of %d bytes: %g allocations to write", size, n)
		}
		for name, pass := range passes(t, &block) {
			if n := testing.AllocsPerRun(10, pass); n > 10 {
				t.Errorf("messages of %d bytes, %s: %g allocations to read", size, name, n)
			}
		}
	}
}

// passes are the ways to read what is in a block.
func passes(tb testing.TB, block *images.Block) map[string]func() {
	header := must[[]byte](tb)(headerBytes())
	image := slices.Concat(header, block.Bytes())
	source, reader := bytes.NewReader(image), &images.Reader{}
	stream := func(size int64) func() {
		return func() {
			source.Reset(image)
			skim(tb, must[*images.Reader](tb)(images.NewReader("f", source, size)))
		}
	}
	return map[string]func(){
		"stream":             stream(int64(len(image))),
		"stream of any size": stream(-1),
		"part": func() {
			p := images.NewPart(source, int64(len(header)), int64(len(image)))
			defer p.Close()
			reader.ResetPart("f", p)
			skim(tb, reader)
		},
		"memory": func() {
			reader.ResetBytes("f", image[len(header):], int64(len(header)))
			skim(tb, reader)
		},
	}
}

func headerBytes() ([]byte, error) {
	var b bytes.Buffer
	err := images.WriteHeader(&b, images.MsgKind)
	return b.Bytes(), err
}

func BenchmarkBlock(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var block images.Block
			fill(&block, size)
			b.SetBytes(int64(block.Len()))
			b.ReportAllocs()
			for b.Loop() {
				fill(&block, size)
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for _, size := range benchSizes {
		var block images.Block
		fill(&block, size)
		for name, pass := range passes(b, &block) {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.SetBytes(int64(block.Len()))
				b.ReportAllocs()
				for b.Loop() {
					pass()
				}
			})
		}
	}
}
