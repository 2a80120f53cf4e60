package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/ipc-cr/ipc-cr/hack/bench/reference"
)

// build compiles the C programs and ipc-cr's into a directory under dir.
func build(ctx context.Context, dir string) (reference.Programs, error) {
	p, err := reference.Build(ctx, dir)
	if err != nil {
		return "", err
	}
	return p, compileLibrary(ctx, p)
}

// libraryPackage is named by its full path: the benchmark runs in any directory
// of the module.
const libraryPackage = "github.com/ipc-cr/ipc-cr/hack/bench/library"

// compileLibrary builds as the Makefile builds bin/ipc-cr.
func compileLibrary(ctx context.Context, p reference.Programs) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", p.Path("library"), libraryPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", libraryPackage, err, out)
	}
	return nil
}
