package plugin_test

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin"
)

// Each action has its word, or a report would say that nothing was done.
func TestReportDone(t *testing.T) {
	all := actions{
		plugin.ActionMake: 1, plugin.ActionRemake: 2, plugin.ActionKeep: 3, plugin.ActionFill: 4, plugin.ActionAdopt: 5,
		plugin.ActionReplace: 6, plugin.ActionLeave: 7, plugin.ActionRemove: 8, plugin.ActionConflict: 9,
	}
	for _, test := range []struct {
		actions actions
		but     []plugin.Action
		want    string
	}{
		{all, nil, "1 made, 2 made anew, 3 equal already, 4 filled, 5 adopted, 6 replaced, 7 left alone, 8 removed, 9 in conflict"},
		{actions{plugin.ActionLeave: 2, plugin.ActionRemove: 1}, []plugin.Action{plugin.ActionLeave}, "1 removed"},
		{actions{plugin.ActionLeave: 2}, []plugin.Action{plugin.ActionLeave}, "nothing to make"},
		{actions{plugin.ActionMake: 0}, nil, "nothing to make"},
	} {
		report := plugin.RestoreReport{Actions: test.actions}
		if got := report.Done(test.but...); got != test.want {
			t.Errorf("%v but %v: %q, want %q", test.actions, test.but, got, test.want)
		}
	}
}
