// Package nstest helps tests that need real IPC namespaces: it gives an
// unprivileged test run a user namespace of its own, skips what the machine
// cannot do (or fails, where it is known that it can), makes namespaces, and
// runs functions of the test binary as processes inside them.
//
// It is for tests only. A package that uses it has
//
//	func TestMain(m *testing.M) { nstest.Main(m) }
//
// and starts processes that it registered before with [Program].
package nstest
