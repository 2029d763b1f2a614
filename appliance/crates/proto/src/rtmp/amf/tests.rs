use super::*;

fn nested(levels: usize) -> Vec<u8> {
    let mut body = vec![2, 0, 1, b'n', 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..levels {
        body.extend([3, 0, 1, b'a']);
    }
    body.push(5);
    for _ in 0..levels {
        body.extend([0, 0, 9]);
    }
    body
}

fn text(value: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out, Field::Text(value));
    out.to_vec()
}

#[test]
fn r01_nesting_is_limited_before_the_recursive_reader() {
    assert!(screen(&nested(MAX_DEPTH), kind::COMMAND).is_ok());
    assert!(decode(&nested(MAX_DEPTH), kind::COMMAND).is_ok());
    assert_eq!(screen(&nested(MAX_DEPTH + 1), kind::COMMAND), Err(AmfError::TooDeep));
    // What overflowed a 2 MB stack: 13 KB of objects in a `connect`; and strict arrays likewise.
    assert_eq!(decode(&nested(4000), kind::COMMAND).unwrap_err(), AmfError::TooDeep);
    let mut arrays = text("connect");
    for _ in 0..4000 {
        arrays.extend([10, 0, 0, 0, 1]);
    }
    arrays.push(5);
    assert_eq!(decode(&arrays, kind::COMMAND).unwrap_err(), AmfError::TooDeep);
}

#[test]
fn r01_size_is_limited() {
    let mut body = text("onMetaData");
    body.extend([12, 0, 0]);
    let rest = MAX_BYTES - body.len() - 2;
    body.extend((rest as u16).to_be_bytes());
    body.extend(vec![b'x'; rest]);
    assert_eq!(body.len(), MAX_BYTES);
    assert!(decode(&body, kind::DATA).is_ok());
    body.push(5);
    assert_eq!(decode(&body, kind::DATA).unwrap_err(), AmfError::TooLong { len: MAX_BYTES + 1 });
}

#[test]
fn value_count_is_limited() {
    let mut body = text("onMetaData");
    body.extend(vec![5; MAX_VALUES - 1]);
    assert!(screen(&body, kind::DATA).is_ok());
    body.push(5);
    assert_eq!(screen(&body, kind::DATA), Err(AmfError::TooManyValues));
}

#[test]
fn r02_commands_with_fewer_than_three_values_are_refused() {
    let mut body = text("publish");
    let few = |count| Err(AmfError::TooFewValues { count, need: 3 });
    assert_eq!(screen(&[], kind::COMMAND), few(0));
    assert_eq!(screen(&body, kind::COMMAND), few(1));
    body.extend([0; 9]);
    assert_eq!(screen(&body, kind::COMMAND), few(2));
    body.push(5);
    assert_eq!(screen(&body, kind::COMMAND), Ok(()));
    assert_eq!(screen(&[5, 5, 5], kind::COMMAND), Err(AmfError::NoName));
    // The same behind the AMF3 form's leading zero.
    let mut amf3 = vec![0];
    amf3.extend(&body);
    assert_eq!(screen(&amf3, kind::COMMAND_AMF3), Ok(()));
    assert_eq!(decode(&amf3, kind::COMMAND_AMF3).unwrap().len(), 3);
}

#[test]
fn r07_markers_that_the_decoder_lacks_are_rewritten() {
    let mut body = text("onMetaData");
    body.extend([8, 0, 0, 0, 9]);
    let mut property = |name: &str, value: &[u8]| {
        body.extend([0, name.len() as u8]);
        body.extend(name.as_bytes());
        body.extend(value);
    };
    property("date", &[11, 0x40, 0x59, 0, 0, 0, 0, 0, 0, 0, 60]);
    property("long", &[12, 0, 0, 0, 2, b'h', b'i']);
    property("xml", &[15, 0, 0, 0, 1, b'x']);
    property("typed", &[16, 0, 3, b'C', b'l', b's', 0, 1, b'k', 1, 1, 0, 0, 9]);
    property("reference", &[7, 0, 1]);
    property("undefined", &[6]);
    property("unsupported", &[13]);
    property("strict", &[10, 0, 0, 0, 2, 5, 1, 0]);
    property("bad", &[2, 0, 2, 0xFF, 0xFE]);
    property("width", &[0, 0x40, 0x59, 0, 0, 0, 0, 0, 0]);
    body.extend([0, 0, 9]);
    let values = decode(&body, kind::DATA).unwrap();
    let Amf0Value::Object(map) = &values[1] else { panic!("no object") };
    assert_eq!(map["date"], Amf0Value::Number(100.0));
    assert_eq!(map["long"], Amf0Value::Utf8String("hi".into()));
    assert_eq!(map["xml"], Amf0Value::Utf8String("x".into()));
    assert!(matches!(&map["typed"], Amf0Value::Object(inner) if inner["k"] == Amf0Value::Boolean(true)));
    for name in ["reference", "undefined", "unsupported"] {
        assert_eq!(map[name], Amf0Value::Undefined);
    }
    assert_eq!(map["strict"], Amf0Value::StrictArray(vec![Amf0Value::Null, Amf0Value::Boolean(false)]));
    assert!(matches!(&map["bad"], Amf0Value::Utf8String(text) if text.contains('\u{FFFD}')));
    assert_eq!(map["width"], Amf0Value::Number(100.0));
}

#[test]
fn r07_strings_cut_short_are_errors_not_padded() {
    let body = [2, 0, 9, b'a', b'b'];
    assert_eq!(decode(&body, kind::DATA).unwrap_err(), AmfError::Truncated { marker: 2, at: 3 });
    let count = [2, 0, 1, b'a', 10, 0xFF, 0xFF, 0xFF, 0xFF, 5];
    assert_eq!(decode(&count, kind::DATA).unwrap_err(), AmfError::Truncated { marker: 10, at: 4 });
}

#[test]
fn r07_an_object_without_its_end_is_closed() {
    let body = [2, 0, 1, b'a', 3, 0, 1, b'k', 5];
    assert_eq!(decode(&body, kind::DATA).unwrap().len(), 2);
}

#[test]
fn what_follows_an_amf3_value_is_left_out() {
    let mut body = text("call");
    body.extend([0; 9]);
    body.extend([5, 17, 0x0A, 0x0B, 1]);
    let values = decode(&body, kind::COMMAND_AMF3).unwrap();
    assert_eq!(values[3], Amf0Value::Undefined);
    assert_eq!(values.len(), 4);
}

#[test]
fn r13_what_is_written_reads_back_and_always_in_the_same_order() {
    let inner = [("b", Field::Bool(true)), ("a", Field::Null)];
    let list = [Field::Text("hvc1"), Field::Number(1.5)];
    let object = [("z", Field::Object(&inner)), ("list", Field::Array(&list)), ("map", Field::Map(&inner))];
    let fields = [Field::Text("name"), Field::Number(2.0), Field::Object(&object)];
    let write = || {
        let mut out = BytesMut::new();
        fields.iter().for_each(|&field| put(&mut out, field));
        out
    };
    let body = write();
    assert_eq!(body, write());
    let at = |name: &[u8]| body.windows(name.len()).position(|window| window == name).unwrap();
    assert!(at(b"\0\x01z") < at(b"\0\x04list") && at(b"\0\x04list") < at(b"\0\x03map"));
    let values = decode(&body, kind::COMMAND).unwrap();
    let Amf0Value::Object(map) = &values[2] else { panic!("no object") };
    assert!(matches!(&map["z"], Amf0Value::Object(z) if z["b"] == Amf0Value::Boolean(true)));
    let read = Amf0Value::StrictArray(vec![Amf0Value::Utf8String("hvc1".into()), Amf0Value::Number(1.5)]);
    assert_eq!(map["list"], read);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let long = "é".repeat(40_000);
    let body = text(&long);
    assert_eq!(body.len(), 3 + 65_534);
    assert!(std::str::from_utf8(&body[3..]).is_ok());
}
