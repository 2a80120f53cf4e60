package guard

import (
	"bufio"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// A guard that somebody has stopped does not answer: the error says what was waited
// for, and how long.
func TestNoAnswer(t *testing.T) {
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	l := line{file: ours, in: bufio.NewReader(ours)}
	defer ours.Close()
	err = l.ask(request{}, 300*time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), "no answer within 300ms: ") {
		t.Errorf("got %v", err)
	}
}
