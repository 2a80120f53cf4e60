package images_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	for range benchMessages {
		m, err := r.Message()
		if err != nil {
			tb.Fatal(err)
		}
		sent += len(m.Msgbuf())
	}
	if _, err := r.Message(); !errors.Is(err, io.EOF) { // puts back what Msgbuf wrote over
		tb.Fatal(err)
	}
	return sent
}

// A pass over a thousand messages allocates for the queue at most.
func TestNoAllocationPerMessage(t *testing.T) {
	for _, size := range benchSizes {
		var block images.Block
		fill(&block, size)
		if n := testing.AllocsPerRun(10, func() { fill(&block, size) }); n > 0 {
			t.Errorf("messages of %d bytes: %g allocations to write", size, n)
		}
		var r images.Reader
		source := bytes.NewReader(block.Bytes())
		for name, reset := range map[string]func(){
			"Reset":      func() { source.Reset(block.Bytes()); r.Reset("f", source, 0, int64(block.Len())) },
			"Reset, -1":  func() { source.Reset(block.Bytes()); r.Reset("f", source, 0, -1) },
			"ResetBytes": func() { r.ResetBytes("f", block.Bytes(), 0) },
		} {
			if n := testing.AllocsPerRun(10, func() { reset(); skim(t, &r) }); n > 2 {
				t.Errorf("messages of %d bytes, %s: %g allocations to read", size, name, n)
			}
		}
	}
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
		source := bytes.NewReader(nil)
		for name, reset := range map[string]func(*images.Reader){
			"stream": func(r *images.Reader) { source.Reset(block.Bytes()); r.Reset("f", source, 0, int64(block.Len())) },
			"memory": func(r *images.Reader) { r.ResetBytes("f", block.Bytes(), 0) },
		} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				var r images.Reader
				b.SetBytes(int64(block.Len()))
				b.ReportAllocs()
				for b.Loop() {
					reset(&r)
					skim(b, &r)
				}
			})
		}
	}
}
