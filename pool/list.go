package pool

// list is a doubly linked list whose nodes live in what they link, so that the path of a call allocates nothing for it.
// The zero value is empty. A node is in at most one list.
type list[T any] struct {
	head, tail *node[T]
	n          int
}

type node[T any] struct {
	prev, next *node[T]
	in         *list[T]
	v          T
}

func (l *list[T]) len() int { return l.n }

func (l *list[T]) front() (v T, ok bool) {
	if l.head == nil {
		return v, false
	}
	return l.head.v, true
}

func (l *list[T]) pushBack(e *node[T]) {
	if e.in != nil {
		return
	}
	e.in, e.prev, e.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = e
	} else {
		l.head = e
	}
	l.tail = e
	l.n++
}

func (l *list[T]) pushFront(e *node[T]) {
	if e.in != nil {
		return
	}
	e.in, e.prev, e.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = e
	} else {
		l.tail = e
	}
	l.head = e
	l.n++
}

// remove takes e out of l and says whether it was in it.
func (l *list[T]) remove(e *node[T]) bool {
	if e.in != l {
		return false
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.head = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		l.tail = e.prev
	}
	e.in, e.prev, e.next = nil, nil, nil
	l.n--
	return true
}

func (l *list[T]) popFront() (v T, ok bool) {
	e := l.head
	if e == nil {
		return v, false
	}
	l.remove(e)
	return e.v, true
}
