package warden

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// ErrBusy says that another CRIU run had its turn for all of the time that was
// waited.
var ErrBusy = errors.New("another CRIU run has its turn")

const (
	// turnTimeout is how long a turn is waited for.
	turnTimeout = time.Minute
	// pollInterval is the pause between two looks at a file of somebody else.
	pollInterval = 5 * time.Millisecond
)

// claim is the content of a turn's file: whose turn it is.
type claim struct {
	Format int           `json:"format"`
	BootID string        `json:"boot_id"`
	CRIU   state.Process `json:"criu"`
	Warden state.Process `json:"warden"`
}

func newClaim(criu, warden state.Process) (claim, error) {
	boot, err := bootID()
	return claim{Format: noteFormat, BootID: boot, CRIU: criu, Warden: warden}, err
}

func parseClaim(content []byte) (claim, error) {
	var c claim
	if err := decodeStrictly(content, &c); err != nil {
		return claim{}, err
	}
	if c.Format != noteFormat || c.CRIU.PID <= 0 || c.Warden.PID <= 0 {
		return claim{}, fmt.Errorf("format %d, without CRIU or warden", c.Format)
	}
	return c, nil
}

// bars says whether c keeps others than its own CRIU run waiting. Its warden may
// still be putting back when its CRIU is dead; its CRIU is still at work when its
// warden was killed.
func (c claim) bars(mine state.Process) bool {
	if otherBoot(c.BootID) {
		return false
	}
	return !dead(c.Warden) || c.CRIU != mine && !dead(c.CRIU)
}

// turn is a claim that this process has made.
type turn struct {
	dir  *state.Dir
	name string
	mine claim
}

// takeTurn makes the claim of that name, as soon as nobody else has it. what is
// for messages.
func takeTurn(ctx context.Context, dir *state.Dir, name, what string, mine claim, wait time.Duration) (*turn, error) {
	content, err := json.Marshal(mine)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(wait); ; {
		err := dir.Create(name, content)
		if err == nil {
			return &turn{dir, name, mine}, nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("take the turn at %s: %w", what, err)
		}
		holder, err := displace(dir, name, mine.CRIU)
		if err != nil {
			return nil, fmt.Errorf("take the turn at %s: %w", what, err)
		}
		if holder != "" && time.Now().After(deadline) {
			return nil, fmt.Errorf("take the turn at %s: %w: that of %s, still after %s (%s)", what, ErrBusy, holder, wait, dir.Join(name))
		}
		if err := pause(ctx, holder != ""); err != nil {
			if holder != "" {
				err = fmt.Errorf("that of %s: %w", holder, err)
			}
			return nil, fmt.Errorf("wait for the turn at %s: %w", what, err)
		}
	}
}

// pause waits a moment, or returns why ctx has ended.
func pause(ctx context.Context, needed bool) error {
	if !needed {
		return context.Cause(ctx)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pollInterval):
		return nil
	}
}

// displace removes a claim that bars nobody. Else it names the holder.
func displace(dir *state.Dir, name string, mine state.Process) (holder string, err error) {
	file, err := dir.Claim(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", nil
	case errors.Is(err, state.ErrBusy):
		return "a process that is looking at it", nil
	case err != nil:
		return "", err
	}
	defer file.Release()
	content, err := file.Read()
	if err != nil {
		return "", err
	}
	c, err := parseClaim(content)
	if err != nil {
		return "", fmt.Errorf("claim %s: %w: look at it, then remove it", dir.Join(name), err)
	}
	if c.bars(mine) {
		return described(c.CRIU), nil
	}
	return "", file.Remove()
}

// release ends the turn. A nil turn is none.
func (t *turn) release() error {
	if t == nil {
		return nil
	}
	content, err := t.dir.Read(t.name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if c, err := parseClaim(content); err != nil || c != t.mine {
		return fmt.Errorf("claim %s is no longer ours: left alone", t.dir.Join(t.name))
	}
	return t.dir.Remove(t.name)
}
