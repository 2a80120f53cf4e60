package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/ipc-cr/ipc-cr/hack/bench/reference"
)

type operation string

const (
	copying   operation = "copy"
	restoring operation = "restore"
)

// A job is what a contender does in one turn: one operation, several times in a
// row in one process, of which it reports the fastest.
type job struct {
	op    operation
	times int
	ns    *namespace // the source of a copy, the target of a restore
	dir   string     // of the images
	plan  string
}

// A contender is a program that copies a namespace into a directory and makes
// it again from there.
type contender struct {
	name string
	// command returns the argument list for a job.
	command func(j job) []string
	// operation reads the operation's time from what the program printed.
	operation func(stdout []byte) (time.Duration, error)
	// pins: the contender restores into namespaces that it makes itself and
	// leaves the last pinned at pinIn; its job needs no target.
	pins bool
}

// pinIn is where a contender pins the namespace that it makes from a directory.
func pinIn(dir string) string { return dir + ".pin" }

// A result is what one turn cost, or the best of several.
type result struct {
	operation time.Duration // the fastest, by what the program says of itself
	process   time.Duration // fork to end
	peak      int64         // largest resident set, bytes
}

func cProgram(name, path string) contender {
	return contender{
		name: name,
		command: func(j job) []string {
			return []string{path, string(j.op), j.ns.path(), j.dir, j.plan, strconv.Itoa(j.times)}
		},
		operation: printedNanoseconds,
	}
}

// ipcCR is the name of two contenders, of which each shape has one.
const ipcCR = "ipc-cr"

// ipcCRLibrary is the library, called by the program in the folder library.
func ipcCRLibrary(path string) contender {
	return contender{
		name: ipcCR,
		pins: true,
		command: func(j job) []string {
			where := pinIn(j.dir)
			if j.op == copying {
				where = strconv.Itoa(j.ns.pid())
			}
			return []string{path, string(j.op), where, j.dir, strconv.Itoa(j.times)}
		},
		operation: printedNanoseconds,
	}
}

// ipcCRCommand is the command that people run: one operation a process.
func ipcCRCommand(path string) contender {
	return contender{
		name: ipcCR,
		pins: true,
		command: func(j job) []string {
			if j.op == restoring {
				return []string{path, "restore", "--new", "--pin", pinIn(j.dir), "--images-dir", j.dir, "--json"}
			}
			return []string{path, "checkpoint", "--pid", strconv.Itoa(j.ns.pid()), "--images-dir", j.dir, "--json"}
		},
		operation: reportedDuration,
	}
}

func printedNanoseconds(stdout []byte) (time.Duration, error) {
	ns, err := strconv.ParseInt(strings.TrimSpace(string(stdout)), 10, 64)
	return time.Duration(ns), err
}

func reportedDuration(stdout []byte) (time.Duration, error) {
	var report struct {
		Duration *int64 `json:"duration_ns"`
	}
	if err := json.Unmarshal(stdout, &report); err != nil {
		return 0, fmt.Errorf("report: %w", err)
	}
	if report.Duration == nil {
		return 0, errors.New("report has no duration_ns")
	}
	return time.Duration(*report.Duration), nil
}

// run does a job and returns what it cost.
func (c *contender) run(ctx context.Context, p reference.Programs, j job) (result, error) {
	stdout, r, err := launch(ctx, p, c.command(j))
	if err == nil {
		r.operation, err = c.operation(stdout)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %s: %w", c.name, j.op, err)
	}
	return r, nil
}

// launch runs a command through reference/c/launch.c, which measures the process.
func launch(ctx context.Context, p reference.Programs, args []string) ([]byte, result, error) {
	costs, costsEnd, err := os.Pipe()
	if err != nil {
		return nil, result{}, err
	}
	defer costs.Close()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.Path("launch"), args...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &stdout, &stderr, []*os.File{costsEnd}
	err = errors.Join(cmd.Run(), costsEnd.Close())
	if err != nil {
		return nil, result{}, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var process, kibibytes int64
	if _, err := fmt.Fscan(costs, &process, &kibibytes); err != nil {
		return nil, result{}, fmt.Errorf("costs of %s: %w", args[0], err)
	}
	return stdout.Bytes(), result{process: time.Duration(process), peak: kibibytes * kib}, nil
}
