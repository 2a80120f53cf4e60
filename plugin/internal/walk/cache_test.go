package walk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// What is kept is used if it is whole, and else made anew.
func TestCache(t *testing.T) {
	nstest.Require(t, "bpf")
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	load := func() []byte {
		t.Helper()
		p, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		content, err := dir.Read(cacheName())
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	whole := load()
	if len(whole) > 16<<10 {
		t.Errorf("%d bytes are kept", len(whole))
	}
	if _, err := readCache(dir, cacheName()); err != nil {
		t.Error(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-1] ^= 1
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"damaged": {damaged, "damaged"},
		"cut":     {whole[:len(whole)-3], "damaged"},
		"empty":   {nil, "no types of a kernel"},
		"head":    {whole[:cacheHead-1], "no types of a kernel"},
	} {
		if err := dir.Replace(cacheName(), c.content); err != nil {
			t.Fatal(err)
		}
		if _, err := readCache(dir, cacheName()); err == nil || err.Error() != dir.Join(cacheName())+": "+c.says {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if !bytes.Equal(load(), whole) {
			t.Errorf("%s: not made anew", name)
		}
	}
	// Whole, but the types of another kernel.
	other := append(cacheHeader([]byte("no types")), "no types"...)
	if err := dir.Replace(cacheName(), other); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(load(), whole) {
		t.Error("those of another kernel: not made anew")
	}
	if err := os.Chown(dir.Join(cacheName()), 1, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := readCache(dir, cacheName()); !errors.Is(err, state.ErrUntrusted) {
		t.Errorf("somebody else's: %v", err)
	}
}

// Types that are kept are not doubted where no types would have helped: to parse
// all of the kernel's takes most of the time.
func TestCacheNotToBlame(t *testing.T) {
	nstest.Require(t, "bpf")
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := withTypes(dir, func(*kernelTypes) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for refused, want := range map[error]int{unix.ENOMEM: 1, unix.EPERM: 1, unix.EINVAL: 2, btf.ErrNotFound: 2} {
		calls := 0
		err := withTypes(dir, func(*kernelTypes) error { calls++; return fmt.Errorf("load: %w", refused) })
		if calls != want || !errors.Is(err, refused) {
			t.Errorf("%v: tried %d times, want %d; %v", refused, calls, want, err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	nstest.Require(b, "bpf")
	dir, err := state.Open(filepath.Join(b.TempDir(), "state"))
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	for name, in := range map[string]*state.Dir{"kept": dir, "anew": nil} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p, err := Open(in)
				if err != nil {
					b.Fatal(err)
				}
				p.Close()
			}
		})
	}
}
