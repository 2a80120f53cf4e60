package plugin

import (
	"fmt"
	"strings"
)

// ConflictError tells which objects stand in the way of a restore. Nothing was
// changed.
type ConflictError struct {
	Steps  []Step // those with ActionConflict
	Remedy Remedy // what decides otherwise
}

// Remedy is what decides otherwise about conflicts.
type Remedy string

// RemedyPolicy is RestoreOptions.OnConflict, and the others are its fields of those
// names, of which Replace as the policy makes an end as well.
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

// remedy is what a person can do about conflicts.
func (r *restore) remedy() Remedy {
	if r.past != nil {
		switch r.past.rule {
		case later:
			return RemedyLater
		case running:
			return RemedyInPlace
		case again:
			return RemedyAgain
		}
	}
	if r.opt.OnConflict == Adopt && r.opt.Existing != ExistingAdopt {
		return RemedyExisting
	}
	return RemedyPolicy
}
