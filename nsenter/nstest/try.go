package nstest

import (
	"testing"
	"time"
)

// tryFor bounds how long Try goes on: it is many times what one attempt takes on a
// machine that does nothing else.
const tryFor = 3 * time.Minute

// Try is for what a test can only hope to meet: a neighbour that is busy all the
// while, a kill that comes in the middle. attempt returns nil when it has met that,
// whether the test has passed or failed by then, and else an error that says what it
// has not met. Such an attempt proves nothing: Try logs it as inconclusive, unless the
// one before was so for the same reason, and makes another, with the same programs or new ones, as attempt likes. If all remain
// inconclusive for three minutes the test fails: it never passes by luck, nor fails
// because somebody else had the processor without saying so.
//
// What is wrong whenever it is seen, attempt reports by t.Error or t.Fatal, and Try
// makes no other attempt.
func Try(t testing.TB, attempt func() (inconclusive error)) {
	t.Helper()
	try(t, tryFor, attempt)
}

func try(t testing.TB, within time.Duration, attempt func() error) {
	t.Helper()
	before := ""
	for n, began := 1, time.Now(); ; n++ {
		err := attempt()
		if err == nil || t.Failed() {
			return
		}
		if took := time.Since(began); took > within {
			t.Fatalf("inconclusive, %d times in %v: %v", n, took.Round(time.Millisecond), err)
		}
		if said := err.Error(); said != before {
			t.Logf("inconclusive, tried again: %v", err)
			before = said
		}
	}
}
