package inspect_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
)

// An archive that is cut off is an error wherever it is, even between two
// members: tar ends there without a word, but the sysctls come last.
func TestTruncatedArchive(t *testing.T) {
	archive := tarOf(t, member{"ipcns-msg-9.img", criuImage(t, "userns", images.MsgKind)},
		member{"ipcns-var-9.img", criuImage(t, "userns", images.VarKind)})
	whole, err := visit(file(t, "whole", archive))
	if err != nil {
		t.Fatal(err)
	}
	for form, pack := range packings {
		packed := pack(t, archive)
		for cut := range packed {
			got, err := visit(file(t, "cut", packed[:cut]))
			if !slices.Equal(got.calls, whole.calls[:len(got.calls)]) {
				t.Fatalf("%s, %d bytes: calls %q", form, cut, got.calls)
			}
			if err == nil && len(got.calls) != len(whole.calls) {
				t.Errorf("%s, %d of %d bytes: %d calls and no error", form, cut, len(packed), len(got.calls))
			}
		}
	}
}

// A header may claim any size: what is allocated is what is there.
func TestHugeHeader(t *testing.T) {
	for _, size := range []int64{1 << 31, 1 << 40, 1<<63 - 1} {
		for _, name := range []string{"ipcns-msg-1.img", "ipcns-var-1.img", "ipcns-sem-1.img", "ipc-cr-1.json", "pages-1.img"} {
			var b bytes.Buffer
			if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o600, Format: tar.FormatGNU}); err != nil {
				t.Fatal(err)
			}
			b.Write(hugeMessage(t, 1<<31-1))
			path := file(t, "huge.tar", b.Bytes())
			var err error
			spent := allocated(func() { _, err = visit(path) })
			want := io.ErrUnexpectedEOF
			if name == "ipcns-msg-1.img" && size == 1<<31 { // too little for the message
				want = images.ErrFormat
			}
			if !errors.Is(err, want) || spent > 8<<20 {
				t.Errorf("%s of %d bytes: %d bytes allocated, %v, want %v", name, size, spent, err, want)
			}
		}
	}
}

// hugeMessage begins an image whose one message claims a size.
func hugeMessage(t testing.TB, size int) []byte {
	t.Helper()
	image := bytes.Clone(criuImage(t, "userns", images.MsgKind))
	at := bytes.Index(image, []byte{4, 0, 0, 0, 8, 1, 16, 8}) // length, mtype 1, msize 8
	if at < 0 {
		t.Fatal("the image has no message of 8 bytes")
	}
	head := []byte{8, 0, 0, 0, 8, 1, 16}
	for ; size >= 0x80; size >>= 7 {
		head = append(head, byte(size)|0x80)
	}
	return append(append(image[:at:at], append(head, byte(size))...), "payload"...)
}

// What unpacks to very much is passed through, not kept.
func TestBomb(t *testing.T) {
	const unpacked = 48 << 20
	archive := tarOf(t, member{"pages-1.img", make([]byte, unpacked)}, member{"ipcns-sem-1.img", make([]byte, unpacked)},
		member{"ipcns-var-1.img", make([]byte, unpacked)})
	for _, form := range []string{"gzip", "zstd"} {
		packed := packings[form](t, archive)
		path := file(t, "bomb", packed)
		var err error
		spent := allocated(func() { _, err = visit(path) })
		if !errors.Is(err, images.ErrFormat) {
			t.Errorf("%s: %v", form, err)
		}
		if spent > 32<<20 {
			t.Errorf("%s: %d bytes allocated for %d that hold %d", form, spent, len(packed), len(archive))
		}
	}
}

// The window of a zstd stream is memory that the stream asks for (RFC 8878,
// 3.1.1.1.2): 512 MiB here.
func TestZstdWindow(t *testing.T) {
	stream := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 0xff, 0xff, 0x03, 0x00}
	path := file(t, "big.zst", append(stream, make([]byte, 1<<16)...))
	var err error
	spent := allocated(func() { _, err = visit(path) })
	if err == nil || !strings.Contains(err.Error(), "window size exceeded") || spent > 32<<20 {
		t.Errorf("%v, %d bytes allocated", err, spent)
	}
}

// Names in an archive are hostile text: one line, whatever they hold.
func TestHostileNames(t *testing.T) {
	for name, want := range map[string]string{
		"a\x1b[2J\n/ipcns-var-1.img":  `"a\x1b[2J\n/ipcns-var-1.img"`,
		"../../etc/ipcns-var-1.img":   "../../etc/ipcns-var-1.img",
		"/etc/ipcns-var-1.img":        "/etc/ipcns-var-1.img",
		"caf\u00e9/ipcns-var-1.img":   "caf\u00e9/ipcns-var-1.img",
		"\u202e\xff/ipcns-var-1.img":  `"\u202e\xff/ipcns-var-1.img"`,
		`quote"back\ipcns-var-1.img`:  "",
		`quote"back\/ipcns-var-1.img`: `"quote\"back\\/ipcns-var-1.img"`,
	} {
		path := file(t, "a.tar", tarOf(t, member{name, []byte("bad image")}))
		r, err := visit(path)
		if want == "" {
			if len(r.calls) > 0 {
				t.Errorf("%q: %q", name, r.calls)
			}
			continue
		}
		if len(r.names) != 1 || r.names[0] != path+":"+want {
			t.Errorf("%q is named %q, want %q", name, r.names, path+":"+want)
		}
		if !errors.Is(err, images.ErrFormat) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: %q", name, err)
		}
	}
}

// An archive that a stream breaks off in has not ended, though an image may end
// there.
func TestArchiveBreaksOffBetweenQueues(t *testing.T) {
	image := criuImage(t, "plain", images.MsgKind)
	archive := tarOf(t, member{"ipcns-msg-1.img", image})
	for _, at := range []int{8, 180} {
		cut := archive[:512+at]
		_, err := visit(file(t, "a.tar", cut))
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), fmt.Sprintf("ipcns-msg-1.img at offset %d: ", at)) {
			t.Errorf("cut at %d: %v, want ErrUnexpectedEOF and where", at, err)
		}
	}
}

func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzArchive(f *testing.F) {
	members := []member{
		{"checkpoint/ipcns-msg-9.img", criuImage(f, "plain", images.MsgKind)},
		{"checkpoint/ipcns-var-9.img", criuImage(f, "plain", images.VarKind)},
	}
	for _, pack := range packings {
		f.Add(pack(f, tarOf(f, members...)))
		f.Add(pack(f, tarOf(f, checkpoint(f)[0])))
	}
	for _, m := range members {
		f.Add(m.data)
	}
	path := filepath.Join(f.TempDir(), "archive")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var r *recorder
		var err error
		spent := allocated(func() { r, err = visit(path) })
		if spent > 512<<20 {
			t.Errorf("%d bytes allocated for %d", spent, len(data))
		}
		if err == nil && (len(r.calls) < 2 || !strings.HasPrefix(r.calls[len(r.calls)-1], "end ")) {
			t.Errorf("accepted after %q", r.calls)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("the error is not one line of text: %q", err)
		}
	})
}
