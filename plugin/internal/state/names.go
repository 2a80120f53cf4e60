package state

import "strconv"

// NamespaceName is the part of a file name that stands for an IPC namespace: its
// 64-bit id, which is not given again until reboot, or its inode number where the
// kernel gives no id (before Linux 6.18). That one a later namespace may have, so
// such a name alone does not prove of which one a file is.
func NamespaceName(id, inode uint64) string {
	if id != 0 {
		return strconv.FormatUint(id, 10)
	}
	return "inode-" + strconv.FormatUint(inode, 10)
}
