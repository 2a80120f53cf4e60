package nsenter

import "golang.org/x/sys/unix"

var (
	CheckHolds = checkHolds
	StartTime  = startTime
	LinkError  = linkError
	ParseIDMap = parseIDMap
)

// withoutID stands for a kernel before 6.18.
func withoutID(int) (uint64, error) { return 0, nil }

func withoutHandle(uint64, uint64) (int, error) { return -1, unix.EBADF }

// IdentityWithoutID is Identity on a kernel without 64-bit ids.
func (n *Namespace) IdentityWithoutID() (Identity, error) { return n.identityBy(withoutID) }

// OpenIdentityWithoutID is OpenIdentity on a kernel without 64-bit ids.
func OpenIdentityWithoutID(id Identity) (*Namespace, error) {
	return openIdentity(id, withoutID, withoutHandle)
}

// OpenIdentityByScan is OpenIdentity where the kernel opens no handles.
func OpenIdentityByScan(id Identity) (*Namespace, error) {
	return openIdentity(id, kernelID, withoutHandle)
}
