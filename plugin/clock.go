package plugin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// clock is the one from which the kernel takes the times of message queues.
type clock struct {
	timer int // a timerfd that is cancelled when somebody sets the clock
}

func newClock() (*clock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the clock: timerfd_create: %w", err)
	}
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32}}
	const cancelOnSet = 1 << 1 // TFD_TIMER_CANCEL_ON_SET, include/linux/timerfd.h
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|cancelOnSet, &never, nil); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the clock: timerfd_settime: %w", err)
	}
	return &clock{timer: fd}, nil
}

func (c *clock) close() { unix.Close(c.timer) }

// second returns the current second as the kernel stamps it on queues.
func (c *clock) second() (int64, error) { return stampSecond() }

// stampSecond reads ktime_get_real_seconds. The coarse clock is read by the system call,
// because the vDSO's copy may lag behind it.
func stampSecond() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return int64(now.Sec), nil
}

// stepped reports whether the clock was set since the last call.
func (c *clock) stepped() bool {
	var buf [8]byte
	_, err := unix.Read(c.timer, buf[:])
	return errors.Is(err, unix.ECANCELED)
}

// waitSecond waits for the next second to begin.
func (c *clock) waitSecond(ctx context.Context) error {
	second, err := c.second()
	for now := second; err == nil; now, err = c.second() {
		if now != second {
			return nil
		}
		// The fine clock is ahead of the coarse one by up to a tick.
		next := time.Until(time.Unix(now+1, 0).Add(5 * time.Millisecond))
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the next second to begin: %w", context.Cause(ctx))
		case <-time.After(max(next, time.Millisecond)):
		}
	}
	return err
}

func boottime() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the time since boot: %w", err)
	}
	return now.Nano(), nil
}
