package plugin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// ConflictError tells which objects stand in the way of a restore. Nothing was
// changed.
type ConflictError struct {
	Steps  []Step // those with ActionConflict
	Remedy Remedy // what decides otherwise
}

// Remedy is what decides otherwise about conflicts.
type Remedy string

// RemedyPolicy is Replace as RestoreOptions.OnConflict, which decides in any case. The
// others are the fields of those names: RemedyExisting is ExistingAdopt, with Adopt
// as the policy.
const (
	RemedyPolicy   Remedy = "policy"
	RemedyExisting Remedy = "existing"
	RemedyLater    Remedy = "later"
	RemedyInPlace  Remedy = "in_place"
	RemedyAgain    Remedy = "again"
)

// mostNamed is how many conflicts an error names.
const mostNamed = 10

func (e *ConflictError) Error() string {
	named := e.Steps[:min(len(e.Steps), mostNamed)]
	texts := make([]string, len(named))
	for i, step := range named {
		texts[i] = step.Object + ": " + step.Reason
	}
	if more := len(e.Steps) - len(named); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more conflicts", more))
	}
	return strings.Join(texts, ", ") + ": nothing was changed"
}

// remedy is what a person can do about all of the conflicts.
func (r *restore) remedy(conflicts []Step) Remedy {
	way := conflicts[0].Way
	if slices.ContainsFunc(conflicts, func(s Step) bool { return s.Way != way }) {
		return RemedyPolicy
	}
	switch {
	case way == kind.ByAdopt:
		return RemedyExisting
	case way == kind.ByOrder && r.past != nil:
		return r.past.remedy()
	}
	return RemedyPolicy
}

// remedy is what decides otherwise about the orders.
func (p *past) remedy() Remedy {
	switch p.rule {
	case later:
		return RemedyLater
	case running:
		return RemedyInPlace
	case again:
		return RemedyAgain
	}
	return RemedyPolicy
}
