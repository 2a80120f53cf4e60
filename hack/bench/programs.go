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

// programs is the directory of the compiled programs.
type programs string

func (p programs) path(name string) string { return filepath.Join(string(p), name) }

// build compiles the C programs, with $CC or cc, and ipc-cr's into a directory
// under dir.
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
	return p, p.compileLibrary(ctx)
}

// libraryPackage is named by its full path: the benchmark runs in any directory
// of the module.
const libraryPackage = "github.com/ipc-cr/ipc-cr/hack/bench/library"

// compileLibrary builds as the Makefile builds bin/ipc-cr.
func (p programs) compileLibrary(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", p.path("library"), libraryPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", libraryPackage, err, out)
	}
	return nil
}

func (p programs) compile(ctx context.Context, name string) error {
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
