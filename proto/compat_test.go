package proto

import (
	_ "embed"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	_ "paddock/proto/paddock/v1"
)

// former is the definition of all messages as the version before spoke them, from
// `buf build --as-file-descriptor-set --exclude-source-info`. When internal/nodewire.Protocol is raised, the definition that was
// current becomes this file's.
//
//go:embed testdata/protocol1.binpb
var former []byte

// spoken says whether a file defines what processes of different versions exchange, directly or by the store.
func spoken(file protoreflect.FileDescriptor) bool {
	return strings.HasSuffix(file.Path(), "/node.proto") || strings.HasSuffix(file.Path(), "/records.proto")
}

func formerFiles(t *testing.T) *protoregistry.Files {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(former, set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// fill gives every field of a message a value, of a oneof the last one, to a depth.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() != nil && !f.IsMap() && depth == 0 {
			continue
		}
		switch {
		case f.IsList():
			l := m.Mutable(f).List()
			l.Append(some(f, l.NewElement, depth))
		case f.IsMap():
			mp := m.Mutable(f).Map()
			mp.Set(some(f.MapKey(), nil, depth).MapKey(), some(f.MapValue(), mp.NewValue, depth))
		default:
			m.Set(f, some(f, func() protoreflect.Value { return m.NewField(f) }, depth))
		}
	}
}

func some(f protoreflect.FieldDescriptor, fresh func() protoreflect.Value, depth int) protoreflect.Value {
	n := int(f.Number())
	switch f.Kind() {
	case protoreflect.MessageKind:
		v := fresh()
		fill(v.Message(), depth-1)
		return v
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(f.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(f.Name()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) + 0.5)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n) + 0.5)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	default:
		return protoreflect.ValueOfInt64(int64(n))
	}
}

func pass(t *testing.T, from, through proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, through); err != nil {
		t.Fatal(err)
	}
	if b, err = (proto.MarshalOptions{Deterministic: true}).Marshal(through); err != nil {
		t.Fatal(err)
	}
	return b
}

// What the former version writes is read here without a field left over, and it reads back what it wrote; what is written here goes
// through the former version's hands, record by record and call by call, without losing what that does not know.
func TestFormerVersionIsUnderstood(t *testing.T) {
	const deep = 6
	seen := 0
	formerFiles(t).RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Messages().Len() {
			if !spoken(file) {
				break
			}
			old := file.Messages().Get(i)
			seen++
			now, err := protoregistry.GlobalTypes.FindMessageByName(old.FullName())
			if err != nil {
				t.Errorf("%s is gone: the former version still speaks it", old.FullName())
				continue
			}
			theirs, ours := dynamicpb.NewMessage(old), now.New().Interface()
			fill(theirs, deep)
			back := dynamicpb.NewMessage(old)
			if err := proto.Unmarshal(pass(t, theirs, ours), back); err != nil || !proto.Equal(theirs, back) {
				t.Errorf("%s of the former version comes back as\n%v, not\n%v (%v)", old.FullName(), back, theirs, err)
			}
			noUnknown(t, ours.ProtoReflect())

			ours = now.New().Interface()
			fill(ours.ProtoReflect(), deep)
			again := now.New().Interface()
			if err := proto.Unmarshal(pass(t, ours, dynamicpb.NewMessage(old)), again); err != nil || !proto.Equal(ours, again) {
				t.Errorf("%s loses something in the former version's hands (%v)", old.FullName(), err)
			}
		}
		return true
	})
	if seen < 20 {
		t.Errorf("only %d messages of the former version were looked at", seen)
	}
}

// noUnknown reports fields that the former version knows and this one does not.
func noUnknown(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if u := m.GetUnknown(); len(u) > 0 {
		n, _, _ := protowire.ConsumeTag(u)
		t.Errorf("field %d of %s is not known any more", n, m.Descriptor().FullName())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				noUnknown(t, v.List().Get(i).Message())
			}
		default:
			noUnknown(t, v.Message())
		}
		return true
	})
}
