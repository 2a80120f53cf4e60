// Package inspect finds the images of IPC namespaces in a directory, a file or
// an archive, and hands their content to a Visitor, a message at a time.
package inspect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ipc-cr/ipc-cr/images"
)

// Visitor is told what is found, in the order of the files. An error ends the
// visit.
type Visitor interface {
	// Begin opens a file.
	Begin(File) error
	// Vars is the record of an ipcns-var file.
	Vars(*images.Vars) error
	// Queue opens a queue of an ipcns-msg file.
	Queue(*images.Queue) error
	// Message is a message of the queue, valid until the call returns.
	Message(*images.Payload) error
	// EndQueue closes a queue; bytes is the length of all its payloads.
	EndQueue(q *images.Queue, bytes int64) error
	// Manifest is the content of the JSON file.
	Manifest(*images.Manifest) error
	// End closes a file.
	End(File) error
}

// File is a file that was found.
type File struct {
	Name   string `json:"file"` // path, or name in the archive
	Kind   string `json:"kind"` // images.MsgKind and so on, "" for the JSON file
	Number uint32 `json:"ns_number"`
}

// Path visits what is at a path: an images directory, one image file, or an
// archive as podman container checkpoint --export makes it.
func Path(path string, v Visitor) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return directory(path, v)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a directory nor a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return file(path, f, info.Size(), v)
}

func directory(path string, v Visitor) error {
	dir, err := images.OpenDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	numbers, err := dir.Numbers()
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		numbers = []uint32{1} // for the error that says what is missing
	}
	for _, n := range numbers {
		set, err := dir.Set(int64(n))
		if err != nil {
			return err
		}
		if err := visitSet(set, v); err != nil {
			return err
		}
	}
	return nil
}

func visitSet(set *images.Set, v Visitor) error {
	if set.Manifest != nil {
		f := File{Name: filepath.Join(set.Dir.Path(), images.ManifestName(set.Number)), Number: set.Number}
		if err := bracket(f, v, func() error { return v.Manifest(set.Manifest) }); err != nil {
			return err
		}
	}
	for _, kind := range []string{images.VarKind, images.MsgKind, images.SemKind, images.ShmKind} {
		file, size, err := set.Open(kind)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		sum := &images.SumReader{R: file}
		err = image(File{Name: set.Path(kind), Kind: kind, Number: set.Number}, sum, size, v)
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
		set.Checked(kind, sum.Size, sum.CRC)
		if err := set.Ready(); err != nil {
			return err
		}
	}
	return nil
}

// file tells an image from an archive by its first bytes.
func file(path string, r io.Reader, size int64, v Visitor) error {
	head := bufio.NewReaderSize(r, 4096)
	if kind := images.KindOf(head); kind != "" {
		_, n, _ := images.ParseFileName(filepath.Base(path))
		return image(File{Name: path, Kind: kind, Number: n}, head, size, v)
	}
	return archive(path, head, v)
}

// image visits one image file.
func image(f File, r io.Reader, size int64, v Visitor) error {
	return bracket(f, v, func() error {
		switch f.Kind {
		case images.VarKind:
			vars, err := images.ReadVars(f.Name, r)
			if err != nil {
				return err
			}
			return v.Vars(vars)
		case images.MsgKind:
			return queues(f, r, size, v)
		case "":
			manifest, err := images.ReadManifest(f.Name, r)
			if err != nil {
				return err
			}
			return v.Manifest(manifest)
		}
		_, err := io.Copy(io.Discard, r) // a kind that is named and not shown
		return err
	})
}

func bracket(f File, v Visitor, content func() error) error {
	if err := v.Begin(f); err != nil {
		return err
	}
	if err := content(); err != nil {
		return err
	}
	return v.End(f)
}

func queues(f File, src io.Reader, size int64, v Visitor) error {
	r, err := images.NewReader(f.Name, src, size)
	if err != nil {
		return err
	}
	for {
		q, err := r.Queue()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := messages(r, q, v); err != nil {
			return err
		}
	}
}

func messages(r *images.Reader, q *images.Queue, v Visitor) error {
	if err := v.Queue(q); err != nil {
		return err
	}
	bytes := int64(0)
	for {
		m, err := r.Message()
		if errors.Is(err, io.EOF) {
			return v.EndQueue(q, bytes)
		}
		if err != nil {
			return err
		}
		bytes += int64(m.Size)
		if err := v.Message(&m); err != nil {
			return err
		}
	}
}
