package criuhook

import "testing"

// What Concerns knows is answered, and nothing else: the binary leaves at once for
// all other actions.
func TestAnswers(t *testing.T) {
	for _, action := range []string{PreDump, PostDump, PreRestore, PostSetupNamespaces} {
		if !Concerns(action) || actions[action] == nil {
			t.Errorf("%s: concerns %t, answered %t", action, Concerns(action), actions[action] != nil)
		}
	}
	if !Concerns(PostResume) { // which has no images directory, and so no answer
		t.Errorf("%s does not concern us", PostResume)
	}
	for action := range actions {
		if !Concerns(action) {
			t.Errorf("%s is answered, and does not concern us", action)
		}
	}
}
