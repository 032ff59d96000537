package pool

import (
	"errors"
	"fmt"
)

// uids gives each live container a pair of host user ids of its own: kernel quotas (inotify, pipes, keys) are per uid, so
// a shared one would let a container starve another. A pair is reused as late as possible, and never before nothing of
// its last container is left. Guarded by Pool.mu.
type uids struct {
	base, count uint32
	next        uint32 // offset at which the search begins
	used        map[uint32]ContainerID
}

var errNoUID = errors.New("pool: all uids of the range are in use")

func newUIDs(base, count uint32) *uids {
	return &uids{base: base, count: count &^ 1, used: map[uint32]ContainerID{}}
}

// take returns the first id of a free pair.
func (u *uids) take(id ContainerID) (uint32, error) {
	for range u.count / 2 {
		uid := u.base + u.next
		u.next = (u.next + 2) % u.count
		if _, taken := u.used[uid]; !taken {
			u.used[uid] = id
			return uid, nil
		}
	}
	return 0, errNoUID
}

// reserve marks the pair of a container that was found. A uid outside the range needs no mark.
func (u *uids) reserve(uid uint32, id ContainerID) error {
	if uid < u.base || uid-u.base >= u.count {
		return nil
	}
	if uid%2 != u.base%2 {
		return fmt.Errorf("pool: uid %d of container %s is not the first of a pair", uid, id)
	}
	if other, taken := u.used[uid]; taken && other != id {
		return fmt.Errorf("pool: uid %d of container %s is also container %s's", uid, id, other)
	}
	u.used[uid] = id
	return nil
}

// release frees the pair if it is id's.
func (u *uids) release(uid uint32, id ContainerID) {
	if u.used[uid] == id {
		delete(u.used, uid)
	}
}
