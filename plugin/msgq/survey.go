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
// which CRIU dumps them.
type survey struct {
	queues []kernel.Queue
	size   kind.Size
}

// Survey implements kind.Kind. It needs no permission on the queues.
func (Kind) Survey(t *kind.Target, k kernel.Kernel) (kind.Survey, error) {
	queues, err := stat(t.Space, k)
	if err != nil {
		return nil, err
	}
	return newSurvey(queues), nil
}

func newSurvey(queues []kernel.Queue) *survey {
	s := &survey{queues: queues, size: kind.Size{Objects: len(queues)}}
	for i := range queues {
		s.size.Messages += int64(queues[i].QNum)
		s.size.Bytes += int64(queues[i].CBytes)
	}
	return s
}

// stat reads all queues by going over the indexes: three times faster than
// /proc/sysvipc/msg, which lacks qbytes as well. Large tables are read by
// several threads.
func stat(space kernel.Space, k kernel.Kernel) ([]kernel.Queue, error) {
	table, err := k.Table()
	if err != nil {
		return nil, fmt.Errorf("count the queues: %w", err)
	}
	slots := make([]kernel.Queue, table.MaxIndex+1)
	found := make([]int, table.MaxIndex/shareIndexes+1) // by share
	err = eachIndex(space, k, table.MaxIndex, func(k kernel.Kernel, s share) error {
		return statRange(k, s, func(q *kernel.Queue) error {
			slots[s.from+found[s.number]] = *q
			found[s.number]++
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	queues := slots[:0]
	for number, n := range found { // to the front, where there are gaps
		from := number * shareIndexes
		queues = append(queues, slots[from:from+n]...)
	}
	return queues, nil
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
	table, err := k.Table()
	if err != nil {
		return fmt.Errorf("count the queues: %w", err)
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
		return recheckRange(k, part, s.queues[at(part.from):at(part.to)])
	})
}

// recheckRange compares the queues of a share with those that were there.
func recheckRange(k kernel.Kernel, s share, want []kernel.Queue) error {
	err := statRange(k, s, func(q *kernel.Queue) error {
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

// Busy implements kind.Survey.
func (s *survey) Busy(since, until int64) string {
	in := func(second int64) bool { return since <= second && second <= until }
	i := slices.IndexFunc(s.queues, func(q kernel.Queue) bool {
		return in(q.STime) || in(q.RTime) || in(q.CTime)
	})
	if i < 0 {
		return ""
	}
	return name(&s.queues[i])
}

// Size implements kind.Survey.
func (s *survey) Size() kind.Size { return s.size }
