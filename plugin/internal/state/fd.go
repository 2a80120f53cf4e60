package state

// Fd is the directory's descriptor as a number, valid until Close: for what has
// to be named below it, such as a socket's address.
func (d *Dir) Fd() int { return d.fd }
