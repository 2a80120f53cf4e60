package main

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/ipc-cr/ipc-cr/hack/bench/reference"
)

// A fresh namespace's limits (include/uapi/linux/msg.h).
const (
	defaultMsgmax = 8192
	defaultMsgmnb = 16384
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// A shape is a namespace to copy and restore, and what is asked of ipc-cr there.
type shape struct {
	name   string
	msgmax int     // of the namespace; at least its largest message
	queues [][]int // the sizes of each queue's messages, in order
	runs   int     // instead of the usual number, if not 0
	long   bool    // left out of a quick run
	// without leaves out a contender that would take minutes to show nothing new.
	without string
	// command: measured is a whole process that does one operation, of ipc-cr the
	// command's; elsewhere the operation in a process that has done it before.
	command bool
	limits  []limit
}

// uniform is so many queues of so many messages of one size.
func uniform(queues, messages, size int) [][]int {
	return slices.Repeat([][]int{slices.Repeat([]int{size}, messages)}, queues)
}

func alternating(messages, small, large int) [][]int {
	return [][]int{slices.Repeat([]int{small, large}, messages/2)}
}

func random(messages, least, most int) [][]int {
	source := rand.New(rand.NewPCG(1, 2)) // the same sizes in every run
	sizes := make([]int, messages)
	for i := range sizes {
		sizes[i] = least + source.IntN(most-least+1)
	}
	return [][]int{sizes}
}

func oneLarge(messages, small, large int) [][]int {
	queues := uniform(1, messages, small)
	queues[0][messages/2] = large
	return queues
}

func shapes() []shape {
	oneQueue := []limit{atMostFloor(copying, 1.1), atMostFloor(restoring, 1.25)}
	mixed := []limit{atMostFloor(copying, 1.25), atMostFloor(restoring, 1.25)}
	memory := []limit{peakAtMost(copying, 32*mib), peakAtMost(restoring, 32*mib)}
	return []shape{
		{name: "1 x 1,000 x 64 B", queues: uniform(1, 1000, 64), limits: oneQueue},
		{name: "1 x 16,384 x 1 B", queues: uniform(1, 16384, 1), long: true, limits: oneQueue},
		{name: "1 x 1,000 x 1 B, msgmax 1 MiB", queues: uniform(1, 1000, 1), msgmax: mib,
			limits: append([]limit{fasterThanCRIU(copying, 12)}, oneQueue...)},
		{name: "1 x 64 x 64 KiB", queues: uniform(1, 64, 64*kib),
			limits: []limit{atMostFloor(copying, 1.2), atMostFloor(restoring, 1.5)}},
		{name: "1 x 1,000, 1 B and 64 KiB in turn", queues: alternating(1000, 1, 64*kib), limits: mixed},
		{name: "1 x 1,000, random 1 to 8 KiB", queues: random(1000, kib, 8*kib), limits: mixed},
		{name: "1 x 1,000 x 64 B, one of 1 MiB", queues: oneLarge(1000, 64, mib), limits: mixed},
		{name: "1,000 x 16 x 256 B", queues: uniform(1000, 16, 256),
			limits: []limit{fasterThanCRIU(copying, 2.5), fasterThanCRIU(restoring, 1.5)}},
		{name: "32,000 x 1 x 64 B", queues: uniform(32000, 1, 64),
			limits: []limit{atMostFloor(copying, 0.9), atMostFloor(restoring, 1.1)}},
		{name: "1 x 10 x 64 B", queues: uniform(1, 10, 64), command: true,
			limits: []limit{processAtMost(copying, 5), processAtMost(restoring, 5)}},
		{name: "1 x 100,000 x 64 B", queues: uniform(1, 100_000, 64), runs: 1, long: true, command: true, without: "floor",
			limits: []limit{processFasterThanCRIU(copying, 400)}},
		{name: "1 x 8,192 x 64 KiB", queues: uniform(1, 8192, 64*kib), runs: 3, long: true, command: true, limits: memory},
		{name: "1 x 512 x 1 MiB", queues: uniform(1, 512, mib), runs: 3, long: true, command: true, limits: memory},
		{name: "8 x 1,024 x 64 KiB", queues: uniform(8, 1024, 64*kib), runs: 3, long: true, command: true, limits: memory},
		{name: "8 x 64 x 1 MiB", queues: uniform(8, 64, mib), runs: 3, long: true, command: true, limits: memory},
	}
}

// namespaceLimits returns the msgmax and msgmnb under which the queues fit.
func (s *shape) namespaceLimits() (msgmax, msgmnb int) {
	msgmax, msgmnb = max(defaultMsgmax, s.msgmax), defaultMsgmnb
	for _, sizes := range s.queues {
		total := 0
		for _, size := range sizes {
			total += size
			msgmax = max(msgmax, size)
		}
		msgmnb = max(msgmnb, total, len(sizes))
	}
	return msgmax, msgmnb
}

// writePlan writes the shape for the C programs.
func (s *shape) writePlan(path string) error {
	msgmax, msgmnb := s.namespaceLimits()
	if err := reference.WritePlan(path, msgmax, msgmnb, s.queues); err != nil {
		return fmt.Errorf("plan of %s: %w", s.name, err)
	}
	return nil
}
