//! Multiple-choice questions: what is read can be asked, and written again it is read the same.

#![no_main]

use engine::eval::{MAX_CHOICES, parse_questions};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|&b| b == b'\n').count();
    match parse_questions(bytes) {
        Err(err) => assert!((1..=lines).contains(&err.line) && !err.to_string().is_empty()),
        Ok(mut rows) => {
            let mut again = String::new();
            for (i, row) in rows.iter_mut().enumerate() {
                assert!((1..=lines).contains(&row.line));
                assert!((2..=MAX_CHOICES).contains(&row.choices.len()) && row.answer < row.choices.len());
                let json = serde_json::json!({
                    "question": row.question, "choices": row.choices, "answer": row.answer,
                });
                again += &format!("{json}\n");
                row.line = i + 1;
            }
            assert_eq!(parse_questions(again.as_bytes()), Ok(rows));
        }
    }
});
