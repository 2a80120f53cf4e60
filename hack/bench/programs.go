package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The C files are in a folder of their own: the go command refuses them beside
// Go files of a package without cgo.
//
//go:embed c
var sources embed.FS

// programs is the directory of the compiled C programs.
type programs string

func (p programs) path(name string) string { return filepath.Join(string(p), name) }

// build compiles the C programs into a directory under dir, with $CC or cc.
func build(ctx context.Context, dir string) (programs, error) {
	if err := os.CopyFS(dir, sources); err != nil {
		return "", err
	}
	p := programs(filepath.Join(dir, "c"))
	for _, name := range []string{"criulike", "floor", "holder", "launch"} {
		if err := p.compile(ctx, name); err != nil {
			return "", err
		}
	}
	return p, nil
}

func (p programs) compile(ctx context.Context, name string) error {
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	cmd := exec.CommandContext(ctx, compiler, "-O2", "-Wall", "-Wextra", "-o", name, name+".c", "bench.c", "image.c")
	cmd.Dir = string(p)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s.c: %w\n%s", name, err, out)
	}
	return nil
}
