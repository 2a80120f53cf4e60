// Package reference builds the C programs that ipc-cr is measured against, and
// those that serve them: criulike copies and restores a namespace the way CRIU
// does, floor makes the system calls that the work needs and no others, holder
// keeps a namespace alive, launch measures a process.
package reference

import (
	"context"
	"embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// The C files are in a folder of their own: the go command refuses them beside
// Go files of a package without cgo.
//
//go:embed c
var sources embed.FS

// Programs is the directory of the compiled programs.
type Programs string

// Path returns where a program is.
func (p Programs) Path(name string) string { return filepath.Join(string(p), name) }

// Build compiles the programs, with $CC or cc, into a directory under dir.
func Build(ctx context.Context, dir string) (Programs, error) {
	if err := os.CopyFS(dir, sources); err != nil {
		return "", err
	}
	p := Programs(filepath.Join(dir, "c"))
	for _, name := range []string{"criulike", "floor", "holder", "launch"} {
		if err := p.compile(ctx, name); err != nil {
			return "", err
		}
	}
	return p, nil
}

func (p Programs) compile(ctx context.Context, name string) error {
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	cmd := exec.CommandContext(ctx, compiler, "-O2", "-pthread", "-Wall", "-Wextra", "-o", name, name+".c", "bench.c", "image.c")
	cmd.Dir = string(p)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s.c: %w\n%s", name, err, out)
	}
	return nil
}

// WritePlan writes, for the C programs, the limits of a namespace and the sizes of
// each queue's messages: struct plan in c/bench.h.
func WritePlan(path string, msgmax, msgmnb int, queues [][]int) error {
	counts, sizes := []uint32(nil), []uint32(nil)
	for _, queue := range queues {
		counts = append(counts, uint32(len(queue)))
		for _, size := range queue {
			sizes = append(sizes, uint32(size))
		}
	}
	words := []uint32{uint32(msgmax), uint32(msgmnb), uint32(len(counts)), uint32(len(sizes))}
	plan, err := binary.Append(nil, binary.NativeEndian, slices.Concat(words, counts, sizes))
	if err != nil {
		return err
	}
	return os.WriteFile(path, plan, 0o600)
}
