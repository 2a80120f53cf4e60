package inspect

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"github.com/ipc-cr/ipc-cr/images"
)

// archive visits the images in a tar archive, plain or compressed with gzip or
// zstd, in the order in which they stand there.
func archive(name string, r *bufio.Reader, v Visitor) error {
	plain, done, err := decompress(r)
	if err != nil {
		return fmt.Errorf("read archive %s: %w", name, err)
	}
	defer done()
	seen := sets{}
	archive := tar.NewReader(plain)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, tar.ErrHeader) && len(seen) == 0 {
			return fmt.Errorf("%s: neither a CRIU image of an IPC namespace nor a tar archive (plain, gzip or zstd)", name)
		}
		if err != nil {
			return fmt.Errorf("read archive %s: %w", name, err)
		}
		f, ok := member(name, header)
		if !ok {
			continue
		}
		seen.add(f, path.Dir(header.Name))
		if err := image(f, archive, header.Size, v); err != nil {
			return err
		}
	}
	return seen.complete(name)
}

// sets are the checkpoints whose images an archive has shown, by the path of
// their ipcns-var image; true where that was among them.
type sets map[string]bool

func (s sets) add(f File, dir string) {
	if f.Kind != "" {
		vars := path.Join(dir, images.FileName(images.VarKind, f.Number))
		s[vars] = s[vars] || f.Kind == images.VarKind
	}
}

// complete refuses what images.Dir.Set refuses in a directory. Here it is also
// how an archive is found out that was cut off: tar need not notice.
func (s sets) complete(archive string) error {
	if len(s) == 0 {
		return fmt.Errorf("archive %s: no image of an IPC namespace (%s-<N>.img)", archive, images.VarKind)
	}
	for _, vars := range slices.Sorted(maps.Keys(s)) {
		if !s[vars] {
			return fmt.Errorf("archive %s: incomplete checkpoint: no %q", archive, vars)
		}
	}
	return nil
}

// member tells which of our files a member of an archive is. Its name is
// hostile: quoted unless it is plain text.
func member(archive string, header *tar.Header) (f File, ok bool) {
	if header.Typeflag != tar.TypeReg {
		return f, false
	}
	text := header.Name
	if quoted := strconv.Quote(text); quoted != `"`+text+`"` {
		text = quoted
	}
	f.Name = archive + ":" + text
	base := path.Base(header.Name)
	if f.Kind, f.Number, ok = images.ParseFileName(base); ok {
		return f, true
	}
	f.Number, ok = images.ParseManifestName(base)
	return f, ok
}

func decompress(r *bufio.Reader) (plain io.Reader, done func(), err error) {
	head, _ := r.Peek(4)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// The window bounds what a hostile archive makes us allocate.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}
