use super::*;

/// What a reader of codes (not the maker of them) sees in what was drawn on a terminal: each code, from top to bottom.
pub(in crate::cli) fn seen(drawn: &str) -> Vec<String> {
    let rows = drawn.lines().map(|line| line.strip_prefix("\x1b[30;47m")?.strip_suffix("\x1b[0m"));
    let mut codes: Vec<Vec<Vec<bool>>> = vec![Vec::new()];
    for row in rows {
        let code = codes.last_mut().unwrap();
        match row {
            Some(row) => {
                code.push(row.chars().map(|it| matches!(it, '\u{2588}' | '\u{2580}')).collect());
                code.push(row.chars().map(|it| matches!(it, '\u{2588}' | '\u{2584}')).collect());
            }
            None if code.is_empty() => {}
            None => codes.push(Vec::new()),
        }
    }
    codes.retain(|code| !code.is_empty());
    let read = |code: &Vec<Vec<bool>>| {
        // As a camera sees it: several pixels for each module.
        let scale = 4;
        let is_dark = |x: usize, y: usize| code[y / scale][x / scale];
        let (width, height) = (code[0].len() * scale, code.len() * scale);
        let grey = |x: usize, y: usize| if is_dark(x, y) { 20 } else { 230 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, grey);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "one code in the picture");
        grids[0].decode().unwrap().1
    };
    codes.iter().map(read).collect()
}

#[test]
fn a_reader_reads_what_was_drawn() {
    for text in ["https://fieldgate-7f3a.local:8443/#claim=K7Q2M-0XW9D".to_owned(), "x".repeat(TEXT_MAX)] {
        let drawn = drawn(&text).unwrap();
        assert_eq!(seen(&drawn), [text]);
        let lines: Vec<&str> = drawn.lines().collect();
        let columns = lines[0].chars().count() - "\x1b[30;47m\x1b[0m".len();
        assert!(columns <= 97 && lines.len() <= 49, "{columns}x{}", lines.len());
    }
    assert_eq!(drawn(&"x".repeat(2_954)), Err(QrError::TooLong(2_954)));
}

#[test]
fn a_bundle_is_one_code_or_a_numbered_series_of_codes() {
    let at = page("https://fieldgate-7f3a.local:8443").unwrap();
    let before = "https://fieldgate-7f3a.local:8443/#bundle=";
    let short = "a".repeat(TEXT_MAX - before.len());
    assert_eq!(bundle(&short, "0123456789", Some(&at)).unwrap(), [format!("{before}{short}")]);
    assert_eq!(bundle("fgb1.x", "0123456789", None).unwrap(), ["fgb1.x"]);
    let long: String = (0..5_000).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
    let parts = bundle(&long, "0123456789", Some(&at)).unwrap();
    assert_eq!(parts.len(), 8);
    let mut joined = String::new();
    for (part, number) in parts.iter().zip(1..) {
        assert!(part.len() <= TEXT_MAX);
        joined += part.strip_prefix(&format!("{before}{number}.8.01234567.")).unwrap();
    }
    assert_eq!(joined, long);
    let room = TEXT_MAX - PART_HEAD_MAX;
    assert_eq!(bundle(&"a".repeat(PARTS_MAX * room), "0123456789", None).unwrap().len(), PARTS_MAX);
    let over = bundle(&"a".repeat(PARTS_MAX * room + 1), "0123456789", None);
    assert_eq!(over, Err(QrError::TooMany { len: PARTS_MAX * room + 1, parts: PARTS_MAX + 1 }));
}

#[test]
fn only_a_pages_address_stands_before_the_mark() {
    assert_eq!(page("http://10.0.0.7:8080/").unwrap(), "http://10.0.0.7:8080/");
    let long = format!("https://{}", "x".repeat(ADDRESS_MAX - 7));
    for wrong in
        ["", "fieldgate.local", "ftp://x/", "https://", "https:///", "http://a b/", "http://a/#x", &long]
    {
        assert!(page(wrong).is_err(), "{wrong}");
    }
    assert!(page(&long[..ADDRESS_MAX]).is_ok());
}
