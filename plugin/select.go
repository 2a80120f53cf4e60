package plugin

import "github.com/ipc-cr/ipc-cr/plugin/internal/kind"

// Selection chooses objects by their key and the uid of their owner, as the
// caller's user namespace knows it (ipcs(1) shows both).
type Selection = kind.Selection

// NotSelected is the reason in a report of a restore's step that leaves out an
// object of the image because Select did not choose it.
const NotSelected = kind.NotSelected

// Select restricts kinds to chosen objects, for a namespace that is not all the
// caller's business, such as the host's. A kind that cannot be restricted is left
// out.
func Select(kinds []Kind, chosen Selection) []Kind {
	var some []Kind
	for _, of := range kinds {
		if of, ok := of.(kind.Selectable); ok {
			some = append(some, of.Select(chosen))
		}
	}
	return some
}
