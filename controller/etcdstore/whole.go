//go:build !broken

package etcdstore

// guardsOff commits whatever the guards say. Only a build with the tag broken does that, to show that the checkers of test/chaos
// notice.
const guardsOff = false
