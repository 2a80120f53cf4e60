package nstest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// tried runs try with a test of its own.
func tried(t *testing.T, within time.Duration, attempt func(r *recorder) error) *recorder {
	r := &recorder{TB: t}
	var test sync.WaitGroup
	test.Go(func() { try(r, within, func() error { return attempt(r) }) })
	test.Wait()
	return r
}

func TestTry(t *testing.T) {
	n := 0
	r := tried(t, time.Minute, func(*recorder) error {
		if n++; n < 6 {
			return fmt.Errorf("reason %d", n/3)
		}
		return nil
	})
	want := []string{"inconclusive, tried again: reason 0", "inconclusive, tried again: reason 1"}
	if strings.Join(r.logs, "\n") != strings.Join(want, "\n") || r.fatal != "" || n != 6 {
		t.Errorf("%d attempts, logged %q, fatal %q", n, r.logs, r.fatal)
	}
}

// What never meets what it is about has not passed.
func TestTryInconclusive(t *testing.T) {
	n, late := 0, time.Now().Add(20*time.Millisecond)
	r := tried(t, time.Until(late), func(*recorder) error { n++; time.Sleep(time.Millisecond); return errors.New("starved") })
	if want := fmt.Sprintf("inconclusive, %d times in ", n); !strings.HasPrefix(r.fatal, want) || !strings.HasSuffix(r.fatal, ": starved") || time.Now().Before(late) {
		t.Errorf("fatal %q, want %q and the reason, when the time is over", r.fatal, want)
	}
}

// A failure is one, however inconclusive the rest of the attempt was.
func TestTryFails(t *testing.T) {
	n := 0
	r := tried(t, time.Minute, func(r *recorder) error {
		n++
		r.Errorf("wrong")
		return errors.New("starved")
	})
	if n != 1 || !r.Failed() || r.fatal != "" || len(r.logs) > 0 {
		t.Errorf("%d attempts, failed %t, fatal %q, logged %q", n, r.Failed(), r.fatal, r.logs)
	}
}
