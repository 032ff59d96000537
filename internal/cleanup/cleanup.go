// Package cleanup undoes half-made things: register the undo on the line after the acquire, release on success. It is
// not for shutdown of whole services.
package cleanup

// Stack runs its functions in reverse order. The zero value is ready. Not safe for concurrent use.
type Stack struct{ undo []func() }

// Add registers f to run at Clean.
func (s *Stack) Add(f func()) { s.undo = append(s.undo, f) }

// Clean runs what was added, last first, and forgets it. Use it with defer.
func (s *Stack) Clean() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		s.undo[i]()
	}
	s.undo = nil
}

// Release forgets what was added: all went well.
func (s *Stack) Release() { s.undo = nil }
