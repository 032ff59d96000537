//go:build !broken

package pool

// latchOff leaves containers without a latch. Only a build with the tag broken does that, to show that the checkers of test/chaos
// notice.
const latchOff = false
