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
)

type operation string

const (
	copying   operation = "copy"
	restoring operation = "restore"
)

// A contender is a program that copies a namespace into a directory and makes
// it again from there.
type contender struct {
	name string
	// command returns the argument list for one operation.
	command func(op operation, ns *namespace, dir, plan string) []string
	// operation reads the operation's time from what the program printed.
	operation func(stdout []byte) (time.Duration, error)
	// pins: the contender restores into a namespace that it makes itself and
	// leaves pinned at pinIn.
	pins bool
}

// pinIn is where a contender pins the namespace that it makes from a directory.
func pinIn(dir string) string { return dir + ".pin" }

// A result is what one run cost, or the best of several.
type result struct {
	operation time.Duration // what the program says of itself
	process   time.Duration // fork to end
	peak      int64         // largest resident set, bytes
}

func cProgram(name, path string) contender {
	return contender{
		name: name,
		command: func(op operation, ns *namespace, dir, plan string) []string {
			return []string{path, string(op), ns.path(), dir, plan}
		},
		operation: func(stdout []byte) (time.Duration, error) {
			ns, err := strconv.ParseInt(strings.TrimSpace(string(stdout)), 10, 64)
			return time.Duration(ns), err
		},
	}
}

func ipcCR(path string) contender {
	return contender{
		name: "ipc-cr",
		pins: true,
		command: func(op operation, ns *namespace, dir, _ string) []string {
			if op == restoring {
				return []string{path, "restore", "--new", "--pin", pinIn(dir), "--images-dir", dir, "--json"}
			}
			return []string{path, "checkpoint", "--pid", strconv.Itoa(ns.pid()), "--images-dir", dir, "--json"}
		},
		operation: func(stdout []byte) (time.Duration, error) {
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
		},
	}
}

// run does one operation and returns what it cost.
func (c *contender) run(ctx context.Context, p programs, op operation, ns *namespace, dir, plan string) (result, error) {
	stdout, r, err := launch(ctx, p, c.command(op, ns, dir, plan))
	if err == nil {
		r.operation, err = c.operation(stdout)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %s: %w", c.name, op, err)
	}
	return r, nil
}

// launch runs a command through c/launch.c, which measures the process.
func launch(ctx context.Context, p programs, args []string) ([]byte, result, error) {
	costs, costsEnd, err := os.Pipe()
	if err != nil {
		return nil, result{}, err
	}
	defer costs.Close()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.path("launch"), args...)
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
