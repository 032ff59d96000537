// Package archtest holds tests of the source tree as a whole: which package may import which, that every package says what
// it does, that generated code is what its source generates. It has no code of its own.
package archtest
