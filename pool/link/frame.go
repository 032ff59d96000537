package link

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Type is what a frame is for.
type Type uint8

// The frame types of protocol 1.
const (
	TypeHello      Type = 1
	TypeWelcome    Type = 2
	TypeLoad       Type = 3
	TypeLoaded     Type = 4
	TypeLoadFailed Type = 5
	TypeNotLoaded  Type = 6
	TypeInvoke     Type = 7
	TypeData       Type = 8
	TypeWindow     Type = 9
	TypeHead       Type = 10
	TypeStep       Type = 11
	TypeResult     Type = 12
	TypeSettled    Type = 13
	TypeLog        Type = 14
	TypeCancel     Type = 15
	TypePing       Type = 16
	TypePong       Type = 17
)

var typeNames = [...]string{"", "HELLO", "WELCOME", "LOAD", "LOADED", "LOAD_FAILED", "NOT_LOADED", "INVOKE", "DATA", "WINDOW",
	"HEAD", "STEP", "RESULT", "SETTLED", "LOG", "CANCEL", "PING", "PONG"}

func (t Type) String() string {
	if t == 0 || int(t) >= len(typeNames) {
		return fmt.Sprintf("type %d", uint8(t))
	}
	return typeNames[t]
}

// HasHead says whether payloads of this type begin with a head.
func (t Type) HasHead() bool {
	switch t {
	case TypeData, TypeWindow, TypeSettled, TypePing, TypePong:
		return false
	}
	return true
}

// StreamID numbers a stream of one connection; 0 is the link itself.
type StreamID uint32

// The flags of a frame.
const (
	FlagEnd     uint8 = 1 << 0 // the body ends with this frame
	FlagSettled uint8 = 1 << 1 // RESULT only: no SETTLED follows
)

// Bounds of the protocol, in bytes.
const (
	Protocol     = 1
	MaxBody      = 64 << 10  // of any one frame
	MaxAgentHead = 64 << 10  // of a head that the agent sends
	MaxHostHead  = 512 << 10 // of a head that the host sends

	prefixSize  = 4 // the length field
	headerSize  = 6 // type, flags, stream: what length counts besides the payload
	frameStart  = prefixSize + headerSize
	headLenSize = 4
)

// Side is one end of a link.
type Side uint8

// The two sides.
const (
	Agent Side = iota
	Host
)

func (s Side) maxHead() int {
	if s == Host {
		return MaxHostHead
	}
	return MaxAgentHead
}

// sends[side] holds the types that the side may send, a bit each.
var sends = [2]uint32{
	Agent: 1<<TypeHello | 1<<TypeLoaded | 1<<TypeLoadFailed | 1<<TypeNotLoaded | 1<<TypeData | 1<<TypeWindow | 1<<TypeHead |
		1<<TypeStep | 1<<TypeResult | 1<<TypeSettled | 1<<TypeLog | 1<<TypePong,
	Host: 1<<TypeWelcome | 1<<TypeLoad | 1<<TypeInvoke | 1<<TypeData | 1<<TypeWindow | 1<<TypeCancel | 1<<TypePing,
}

// Frame is one frame. Head and Body point into the buffer it was decoded from.
type Frame struct {
	Type   Type
	Flags  uint8
	Stream StreamID
	Head   []byte // JSON as it came, "{}" for an empty one; nil where the type has none
	Body   []byte
	Size   int // bytes of payload, which credit counts
}

// End says whether the body ends with this frame.
func (f *Frame) End() bool { return f.Flags&FlagEnd != 0 }

// ErrBreach is what every violation of the protocol by the peer wraps.
var ErrBreach = errors.New("link protocol broken")

func breach(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBreach, fmt.Sprintf(format, args...))
}

var emptyHead = []byte("{}")

// Decode takes the first frame off buf, which the given side sent. n is how many bytes it took; n = 0 with a nil error
// means that more are needed. Bounds are checked on the first four bytes, before anybody waits or allocates for the rest.
// The frame points into buf. Streams, credit and the content of heads are not its business.
func Decode(buf []byte, from Side) (f Frame, n int, err error) {
	if len(buf) < prefixSize {
		return f, 0, nil
	}
	length := binary.BigEndian.Uint32(buf)
	if length < headerSize || length > uint32(headerSize+headLenSize+from.maxHead()+MaxBody) {
		return f, 0, breach("a frame of %d bytes", length)
	}
	if len(buf) >= frameStart {
		if err := checkStart(buf, from); err != nil {
			return f, 0, err
		}
	}
	n = prefixSize + int(length)
	if len(buf) < n {
		return f, 0, nil
	}
	f = Frame{Type: Type(buf[4]), Flags: buf[5], Stream: StreamID(binary.BigEndian.Uint32(buf[6:]))}
	if err := f.split(buf[frameStart:n:n], from); err != nil {
		return Frame{}, 0, err
	}
	return f, n, nil
}

// checkStart refuses a frame by its type and flags, before its payload is there.
func checkStart(buf []byte, from Side) error {
	t, flags := Type(buf[4]), buf[5]
	if t > TypePong || sends[from]&(1<<t) == 0 {
		return breach("%v is not a frame of this side", t)
	}
	allowed := uint8(0)
	switch t {
	case TypeLoad, TypeInvoke, TypeData, TypeStep:
		allowed = FlagEnd
	case TypeResult:
		allowed = FlagEnd | FlagSettled
	}
	if flags&^allowed != 0 {
		return breach("%v with flags %#02x", t, flags)
	}
	return nil
}

func (f *Frame) split(payload []byte, from Side) error {
	f.Size = len(payload)
	if !f.Type.HasHead() {
		f.Body = payload
		return f.checkPlain()
	}
	if len(payload) < headLenSize {
		return breach("%v without a head", f.Type)
	}
	n := binary.BigEndian.Uint32(payload)
	rest := payload[headLenSize:]
	if n > uint32(from.maxHead()) || int(n) > len(rest) {
		return breach("%v with a head of %d bytes", f.Type, n)
	}
	f.Head, f.Body = rest[:n:n], rest[n:]
	if n == 0 {
		f.Head = emptyHead
	}
	if len(f.Body) > f.Type.maxBody() {
		return breach("%v with a body of %d bytes", f.Type, len(f.Body))
	}
	return nil
}

// maxBody bounds the body of one frame of a type that has a head.
func (t Type) maxBody() int {
	switch t {
	case TypeLoad, TypeInvoke, TypeStep, TypeResult, TypeLog:
		return MaxBody
	}
	return 0
}

func (f *Frame) checkPlain() error {
	want := -1
	switch f.Type {
	case TypeWindow:
		want = 4
	case TypeSettled:
		want = 0
	case TypePing, TypePong:
		want = 8
	}
	if want >= 0 && f.Size != want {
		return breach("%v with %d bytes of payload", f.Type, f.Size)
	}
	if f.Size > MaxBody {
		return breach("%v with %d bytes of payload", f.Type, f.Size)
	}
	return nil
}

// Window returns a WINDOW frame's grant.
func (f *Frame) Window() uint32 { return binary.BigEndian.Uint32(f.Body) }

func appendHeader(dst []byte, t Type, flags uint8, s StreamID, payload int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(headerSize+payload))
	dst = append(dst, byte(t), flags)
	return binary.BigEndian.AppendUint32(dst, uint32(s))
}

// AppendFrame appends a frame that has a head. A nil head is written as length 0.
func AppendFrame(dst []byte, t Type, flags uint8, s StreamID, head, body []byte) []byte {
	dst = appendHeader(dst, t, flags, s, headLenSize+len(head)+len(body))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(head)))
	dst = append(dst, head...)
	return append(dst, body...)
}

// AppendPlain appends a frame that has no head.
func AppendPlain(dst []byte, t Type, flags uint8, s StreamID, payload []byte) []byte {
	return append(appendHeader(dst, t, flags, s, len(payload)), payload...)
}

// AppendWindow appends a grant of credit.
func AppendWindow(dst []byte, s StreamID, grant uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, TypeWindow, 0, s, 4), grant)
}
