package config

import (
	"fmt"
	"slices"
	"time"
)

// choice is one of a few names.
type choice[N names] struct{ value string }

type names interface{ all() []string }

type (
	neighbourNames struct{}
	inPlaceNames   struct{}
	laterNames     struct{}
	againNames     struct{}
	existingNames  struct{}
	methodNames    struct{}
)

func (neighbourNames) all() []string {
	return []string{string(StopNeighbours), string(IgnoreNeighbours)}
}

func (inPlaceNames) all() []string {
	return []string{string(RefuseInPlace), string(KeepInPlace), string(RollbackInPlace)}
}

func (laterNames) all() []string {
	return []string{string(RefuseLater), string(KeepLater)}
}

func (againNames) all() []string {
	return []string{string(RefuseAgain), string(KeepAgain), string(RollbackAgain)}
}

func (existingNames) all() []string {
	return []string{string(RefuseExisting), string(AdoptExisting)}
}

func (methodNames) all() []string {
	return []string{string(AutoMethod), string(CopyMethod), string(BPFMethod)}
}

func (c *choice[N]) UnmarshalText(text []byte) error {
	var n N
	if !slices.Contains(n.all(), string(text)) {
		return fmt.Errorf("not %q", text)
	}
	c.value = string(text)
	return nil
}

type duration struct{ value time.Duration }

func (d *duration) UnmarshalText(text []byte) error {
	value, err := time.ParseDuration(string(text))
	if err != nil || value <= 0 {
		return fmt.Errorf("not %q", text)
	}
	d.value = value
	return nil
}
