package kind

import (
	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// Verifier is an Image that can tell whether it holds what the namespace holds.
// It is how an image that somebody else wrote, CRIU, is judged: copying the
// objects once more would double the time that their users are frozen. A kind
// whose images are no Verifiers is taken as it is.
type Verifier interface {
	Image
	// Verify compares the image with the namespace, object by object, in all that
	// the kernel tells without their content. The survey was just taken of it, and
	// knows afterwards as much as if it had been copied: Busy may be asked.
	Verify(t *Target, k kernel.Kernel, live Survey) (Verified, error)
}

// Verified is what a Verifier found.
type Verified struct {
	// Difference names the first object that differs, and in what; "" if there is
	// none.
	Difference string
	// Details is what the kind would have told of a copy of its own; nil for
	// nothing.
	Details images.Details
}
