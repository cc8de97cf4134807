//! What pandas makes of a column: missing cells, and columns of numbers or truth values that are rewritten as a whole.

use crate::text;

/// Cells that count as missing.
const MISSING: [&str; 18] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan",
];

/// Whether a cell says that there is nothing.
pub(crate) fn is_missing(cell: &str) -> bool {
    MISSING.contains(&cell) || cell == "null"
}

/// The cells of a column as they are shown later.
pub(super) fn read(cells: Vec<Option<String>>) -> Vec<Option<String>> {
    let cells: Vec<Option<String>> =
        cells.into_iter().map(|cell| cell.filter(|cell| !is_missing(cell))).collect();
    let whole = !cells.iter().any(Option::is_none);
    let all = |kind: fn(&str) -> Option<String>| -> Option<Vec<Option<String>>> {
        cells.iter().map(|cell| cell.as_deref().map_or(Some(None), |cell| kind(cell).map(Some))).collect()
    };
    let integers = || if whole { all(integer) } else { None };
    integers().or_else(|| all(float)).or_else(|| all(truth)).unwrap_or(cells)
}

fn integer(cell: &str) -> Option<String> {
    let digits = text::strip(cell);
    let digits = digits.strip_prefix('+').filter(|rest| !rest.starts_with('-')).unwrap_or(digits);
    digits
        .parse::<i64>()
        .map(|value| value.to_string())
        .or_else(|_| digits.parse::<u64>().map(|value| value.to_string()))
        .ok()
}

fn float(cell: &str) -> Option<String> {
    number(text::strip(cell)).map(text::float)
}

fn truth(cell: &str) -> Option<String> {
    match cell {
        "True" | "TRUE" | "true" => Some("True".into()),
        "False" | "FALSE" | "false" => Some("False".into()),
        _ => None,
    }
}

/// A number as pandas' parser reads it: of at most 17 digits, scaled once.
fn number(text: &str) -> Option<f64> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let sign = if negative { -1.0 } else { 1.0 };
    if ["inf", "infinity"].contains(&rest.to_ascii_lowercase().as_str()) {
        return Some(sign * f64::INFINITY);
    }
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0
        || !(whole.bytes().chain(fraction.bytes()).all(|c| c.is_ascii_digit()))
    {
        return None;
    }
    let (mut value, mut digits, mut scale) = (0.0, 0, exponent);
    for (place, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let before_point = place < whole.len();
        // Zeros in front are no digits.
        if digits < 17 && (digits > 0 || digit != b'0') {
            value = value * 10.0 + f64::from(digit - b'0');
            digits += 1;
            scale -= i32::from(!before_point);
        } else if digits == 0 {
            scale -= i32::from(!before_point);
        } else {
            scale += i32::from(before_point);
        }
    }
    let scaled = match scale {
        0.. => value * 10f64.powi(scale.min(400)),
        -308..0 => value / 10f64.powi(-scale),
        _ => value / 10f64.powi((-308 - scale).min(400)) / 1e308,
    };
    Some(sign * scaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: &[&str]) -> Vec<String> {
        let cells = cells.iter().map(|&cell| Some(cell.to_owned())).collect();
        read(cells).into_iter().map(|cell| cell.unwrap_or_else(|| "-".into())).collect()
    }

    #[test]
    fn columns_of_numbers_are_rewritten() {
        assert_eq!(column(&["08", "15", "-3", " 4"]), ["8", "15", "-3", "4"]);
        assert_eq!(column(&["3", ".50", "1e3", "007"]), ["3.0", "0.5", "1000.0", "7.0"]);
        assert_eq!(column(&["3", "", "NA"]), ["3.0", "-", "-"]);
        assert_eq!(column(&["0.1", "123.456", "1e-5", "12.50"]), ["0.1", "123.456", "1e-05", "12.5"]);
        assert_eq!(column(&["3", "x"]), ["3", "x"]);
        assert_eq!(column(&["18446744073709551615", "1"]), ["18446744073709551615", "1"]);
    }

    #[test]
    fn truth_values_and_texts_stay() {
        assert_eq!(column(&["TRUE", "false"]), ["True", "False"]);
        assert_eq!(column(&["True", "yes"]), ["True", "yes"]);
        assert_eq!(column(&["None", "none", "NONE", "null", " NA"]), ["-", "none", "NONE", "-", " NA"]);
        assert_eq!(column(&["NA", "n/a"]), ["-", "-"]);
    }
}
