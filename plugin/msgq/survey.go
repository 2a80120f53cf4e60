package msgq

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// survey is the state of all queues, in the order of their index: the order in
// which CRIU dumps them. It begins with their number and ends, when they are
// copied, with each of them; a copy that failed leaves those that it got to.
type survey struct {
	table  kernel.Table
	queues []kernel.Queue
	chosen kind.Selection
}

// Survey implements kind.Kind. It needs no permission on the queues.
func (of Kind) Survey(t *kind.Target, k kernel.Kernel) (kind.Survey, error) {
	s := &survey{chosen: of.chosen}
	var err error
	if s.chosen == nil {
		s.table, err = count(k)
	} else {
		s.table, err = countChosen(t.Space, k, s.chosen)
	}
	return s, err
}

// countChosen counts as if there were no other queues.
func countChosen(space kernel.Space, k kernel.Kernel, chosen kind.Selection) (table kernel.Table, err error) {
	all, err := stat(space, k)
	if err != nil {
		return table, err
	}
	return tableOf(k, slices.DeleteFunc(all, func(q kernel.Queue) bool { return !chosen.Has(q.Key, q.UID) })), nil
}

// tableOf counts queues as the kernel would if there were no others.
func tableOf(k kernel.Kernel, queues []kernel.Queue) (table kernel.Table) {
	mask := int32(1)<<k.IndexBits() - 1
	for i := range queues {
		q := &queues[i]
		table.Queues++
		table.MaxIndex = max(table.MaxIndex, int(q.ID&mask))
		table.Messages += uint32(q.QNum)
		table.Bytes += uint32(q.CBytes)
	}
	return table
}

func count(k kernel.Kernel) (kernel.Table, error) {
	table, err := k.Table()
	if err != nil {
		return table, fmt.Errorf("count the queues: %w", err)
	}
	return table, nil
}

// stat reads all queues by going over the indexes: three times faster than
// /proc/sysvipc/msg, which lacks qbytes as well. Large tables are read by
// several threads.
func stat(space kernel.Space, k kernel.Kernel) ([]kernel.Queue, error) {
	table, err := count(k)
	if err != nil {
		return nil, err
	}
	all := newSlots(table, shareIndexes)
	err = eachIndex(space, k, table.MaxIndex, func(k kernel.Kernel, s share) error {
		_, err := all.fill(k, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all.queues(), nil
}

// slots has a place for the queue at each index, filled by shares of one width.
type slots struct {
	width int
	all   []kernel.Queue
	found []int                    // by share
	keep  func(*kernel.Queue) bool // nil keeps all
}

func newSlots(table kernel.Table, width int) *slots {
	return &slots{width: width, all: make([]kernel.Queue, table.MaxIndex+1), found: make([]int, table.MaxIndex/width+1)}
}

func (s *slots) shares() []share { return splitEvenly(len(s.all), s.width) }

// fill reads the queues of a share.
func (s *slots) fill(k kernel.Kernel, part share) ([]kernel.Queue, error) {
	queues := s.all[part.from:part.from:part.to]
	err := statRange(k, part, func(q *kernel.Queue) error {
		if s.keep == nil || s.keep(q) {
			queues = append(queues, *q)
		}
		return nil
	})
	s.found[part.number] = len(queues)
	return queues, err
}

// queues moves all queues to the front, where there are gaps.
func (s *slots) queues() []kernel.Queue {
	queues := s.all[:0]
	for number, n := range s.found {
		from := number * s.width
		queues = append(queues, s.all[from:from+n]...)
	}
	return queues
}

// shareIndexes is how many slots of the table a thread reads at once.
const shareIndexes = 2048

// eachIndex lets several threads go over the indexes from 0 to last.
func eachIndex(space kernel.Space, k kernel.Kernel, last int, do work) error {
	t := threads{space: space, begin: func() work { return do }}
	return t.run(k, splitEvenly(last+1, shareIndexes))
}

// statRange calls a function for each queue of a share, in a place that is used
// again.
func statRange(k kernel.Kernel, s share, call func(*kernel.Queue) error) error {
	var q kernel.Queue
	for index := s.from; index < s.to; index++ {
		err := k.StatIndex(index, &q)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
			continue // no queue has this index
		}
		if err != nil {
			return fmt.Errorf("stat the queue at index %d: %w", index, err)
		}
		if err := call(&q); err != nil {
			return err
		}
	}
	return nil
}

func name(q *kernel.Queue) string { return images.QueueName(uint32(q.ID), uint32(q.Key)) }

// Recheck implements kind.Survey: the same queues, every field the same.
func (s *survey) Recheck(t *kind.Target, k kernel.Kernel) error {
	table, err := count(k)
	if err != nil {
		return err
	}
	mask := int32(1)<<k.IndexBits() - 1
	at := func(index int) int { // where in queues the first one from an index on is
		i, _ := slices.BinarySearchFunc(s.queues, index, func(q kernel.Queue, index int) int { return int(q.ID&mask) - index })
		return i
	}
	if last := at(table.MaxIndex + 1); last < len(s.queues) {
		return changed(&s.queues[last])
	}
	return eachIndex(t.Space, k, table.MaxIndex, func(k kernel.Kernel, part share) error {
		return recheckRange(k, part, s.queues[at(part.from):at(part.to)], s.chosen)
	})
}

// recheckRange compares the queues of a share with those that were there.
func recheckRange(k kernel.Kernel, s share, want []kernel.Queue, chosen kind.Selection) error {
	err := statRange(k, s, func(q *kernel.Queue) error {
		if !chosen.Has(q.Key, q.UID) {
			return nil
		}
		if len(want) == 0 {
			return changed(q)
		}
		if *q != want[0] {
			return changed(&want[0])
		}
		want = want[1:]
		return nil
	})
	if err == nil && len(want) > 0 {
		return changed(&want[0])
	}
	return err
}

func changed(q *kernel.Queue) error { return fmt.Errorf("%s: %w", name(q), kind.ErrChanged) }

// Busy implements kind.Survey. Of IPC_SET the kernel keeps the time alone; it changes
// no message, and what it does change is compared.
func (s *survey) Busy(since, until int64, held func(pid int) bool) string {
	in := func(second int64) bool { return since <= second && second <= until }
	by := func(pid int32) bool { return held == nil || !held(int(pid)) }
	i := slices.IndexFunc(s.queues, func(q kernel.Queue) bool {
		return in(q.STime) && by(q.LSPID) || in(q.RTime) && by(q.LRPID) || in(q.CTime) && held == nil
	})
	if i < 0 {
		return ""
	}
	return name(&s.queues[i])
}

// Size implements kind.Survey: a guess at first, exact when all is copied.
func (s *survey) Size() kind.Size {
	if s.queues == nil {
		return kind.Size{Objects: s.table.Queues, Messages: int64(s.table.Messages), Bytes: int64(s.table.Bytes)}
	}
	size := kind.Size{Objects: len(s.queues)}
	for i := range s.queues {
		size.Messages += int64(s.queues[i].QNum)
		size.Bytes += int64(s.queues[i].CBytes)
	}
	return size
}
