package ipcvar

import (
	"fmt"
	"slices"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

var _ kind.Verifier = (*image)(nil)

// Verify implements kind.Verifier for the sysctls that a restore sets.
func (img *image) Verify(_ *kind.Target, _ kernel.Kernel, live kind.Survey) (kind.Verified, error) {
	now := live.(*survey)
	for _, l := range img.limits() {
		i := slices.IndexFunc(sysctls, func(s sysctl) bool { return s.name == l.name })
		if !slices.Equal(now.values[i], []int64{l.value}) {
			return kind.Verified{Difference: fmt.Sprintf("sysctl %s: %d in the image, %d in the namespace", l.name, l.value, now.values[i])}, nil
		}
	}
	return kind.Verified{}, nil
}
