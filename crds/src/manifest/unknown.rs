//! Finds the fields of a document that its type does not model.

use serde_json::Value;

use crate::FieldPath;

/// Paths of what is in `document` and not in `modelled`, the same object after a trip through its
/// type.
///
/// A null or an empty list asks for nothing and is not counted.
pub(super) fn fields(document: &Value, modelled: &Value) -> Vec<FieldPath> {
    let mut found = Vec::new();
    compare(document, Some(modelled), &FieldPath::root(), &mut found);
    found
}

fn compare(
    document: &Value,
    modelled: Option<&Value>,
    path: &FieldPath,
    found: &mut Vec<FieldPath>,
) {
    let Some(modelled) = modelled else {
        if !asks_for_nothing(document) {
            found.push(path.clone());
        }
        return;
    };
    match (document, modelled) {
        (Value::Object(document), Value::Object(modelled)) => {
            for (key, value) in document {
                compare(value, modelled.get(key), &path.key(key), found);
            }
        }
        (Value::Array(document), Value::Array(modelled)) => {
            for (index, value) in document.iter().enumerate() {
                compare(value, modelled.get(index), &path.index(index), found);
            }
        }
        // A scalar that the type took: it may be spelled differently, but it was read.
        _ => {}
    }
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
