"""What a column says of an image, guessed from its name and cells: patient, study, view, age, split, labels."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.draft_folder import LISTED, MARKS, FolderTable, plain_name
from cxrprep.vocabulary import VOCABULARIES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "patient": (
        "patient", "patientid", "subject", "subjectid", "pid", "mrn", "person", "personid", "participant",
        "participantid", "paciente", "idpaciente", "prontuario", "patientenid",
    ),
    "study": (
        "study", "studyid", "studyuid", "studyinstanceuid", "accession", "accessionnumber", "exam", "examid", "estudo",
        "exame", "estudio", "examen", "studie", "untersuchung",
    ),
    "view": (
        "view", "viewposition", "projection", "viewpositiondicom", "position", "frontallateral", "incidencia",
        "projecao", "proyeccion", "projektion", "incidence",
    ),
    "sex": ("sex", "gender", "patientsex", "patientgender", "sexo", "genero", "geschlecht", "sexe"),
    "age": ("age", "patientage", "ageyears", "ageinyears", "idade", "edad", "alter"),
    "birth_year": ("birthdate", "dateofbirth", "dob", "birthyear", "yearofbirth", "patientbirthdate", "patientbirth",
                   "datadenascimento", "nascimento", "fechadenacimiento", "geburtsdatum", "datedenaissance"),
    "date": ("studydate", "date", "examdate", "acquisitiondate", "datadoexame", "data", "fecha", "fechadeestudio",
             "untersuchungsdatum", "datum"),
    "split": ("split", "subset", "partition", "set", "dataset", "part", "conjunto", "particao", "particion"),
}  # fmt: skip
"""What a column may say of an image, and the names that it has then, without blanks and punctuation."""
FINDINGS: Final = (
    "findinglabels", "labels", "findings", "label", "finding", "classname", "class", "diagnosis", "category", "target",
    "tags", "value", "pathology", "pathologies", "disease", "diseases", "achados", "achado", "hallazgos", "hallazgo",
    "befund", "befunde", "diagnostico", "diagnose", "diagnostic", "patologia", "rotulo", "etiqueta", "classe", "clase",
)  # fmt: skip
REPORTS: Final = (
    "report", "reporttext", "text", "findings", "impression", "indication", "comparison", "conclusion", "laudo",
    "informe", "bericht", "befundtext", "compterendu",
)  # fmt: skip
RUNS: Final = ("rle", "encodedpixels", "maskrle", "rlemask", "runlengths", "segmentation")
BOXES: Final = ("box", "boxes", "bbox", "bboxes", "boundingbox", "boundingboxes")
POLYGON: Final = re.compile(r"\s*(?:MULTI)?POLYGON\b", re.IGNORECASE)
READERS: Final = ("radid", "reader", "readerid", "annotator", "radiologist", "rater")
CORNERS: Final = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
CORNER_SIZES: Final = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("boxx", "boxy", "boxw", "boxh"))
_SEXES: Final = {
    **dict.fromkeys(("m", "male", "man", "masculino", "hombre", "mannlich", "männlich", "homme"), "M"),
    **dict.fromkeys(("f", "female", "woman", "feminino", "femenino", "mujer", "w", "weiblich", "femme"), "F"),
}
_DATES: Final = ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y")
VIEWS: Final = {
    "pa": ("PA", "frontal"), "ap": ("AP", "frontal"), "frontal": ("", "frontal"), "lateral": ("LATERAL", "lateral"),
    "lat": ("LATERAL", "lateral"), "l": ("LATERAL", "lateral"), "ll": ("LL", "lateral"), "rl": ("RL", "lateral"),
    "perfil": ("LATERAL", "lateral"), "seitlich": ("LATERAL", "lateral"), "profil": ("LATERAL", "lateral"),
}  # fmt: skip
_SPLITS: Final = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "valid": "validate", "val": "validate",
    "validate": "validate", "validation": "validate", "dev": "validate", "treino": "train", "teste": "test",
    "validacao": "validate", "entrenamiento": "train", "prueba": "test", "validacion": "validate",
}  # fmt: skip
MOST_CLASSES: Final = 60
"""A column of more words names no classes."""
_LONG: Final = 60
_NO_LABELS: Final = ("fold", "index", "followup", "number", "id", "width", "height", "rows", "columns")


def value_of_role(role: str, table: FolderTable, column: str) -> Any:
    """What a column says, as a value; ``None`` where its cells do not look like that."""
    words = table.words(column)
    if role in ("sex", "split"):
        meanings = {word: split_in(word) if role == "split" else _SEXES.get(word.strip().lower(), "") for word in words}
        known = {word: meaning for word, meaning in meanings.items() if meaning}
        return {"column": column, "map": known, "else": "null"} if known else None
    if role == "age":
        if all(re.fullmatch(r"\d+[YMWDymwd]", word) for word in words):
            return {"column": column, "use": "dicom-age"}
        numbers = all(re.fullmatch(r"\d+(\.\d+)?", word) for word in words)
        return {"column": column, "use": "number", "min": 0, "max": 120} if numbers and words else None
    if role in ("birth_year", "date"):
        if role == "birth_year" and all(re.fullmatch(r"(19|20)\d\d(\.0)?", word) for word in words):
            return column
        # A day that may be a month too is left for whoever knows.
        forms = [form for form in _DATES if words and all(_is_date(word, form) for word in words)]
        return {"column": column, "use": f"date:{forms[0]}"} if len(forms) == 1 else None
    if role == "view":
        return column if 0 < len(words) <= MOST_CLASSES else None
    return column


def are_numbered(words: Collection[str]) -> bool:
    """Whether words are one with numbers behind it, or numbers alone: those of studies and series are no classes."""
    return all(re.fullmatch(r".*\d", word) for word in words) and len({re.sub(r"[\d.]+$", "", w) for w in words}) == 1


def _is_date(text: str, form: str) -> bool:
    try:
        dt.datetime.strptime(text, form)  # noqa: DTZ007  # a day has no zone
    except ValueError:
        return False
    return True


def split_in(text: str) -> str:
    """The split that a word, a file's name or its folder speaks of, or nothing."""
    words = [word for part in reversed(text.split("/")[-2:]) for word in re.split(r"[^a-z]+", part.lower())]
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def is_mark(table: FolderTable, column: str) -> bool:
    """Whether a column has labels: nothing but 1, 0, -1 and blanks, and not only one number for all."""
    words = table.words(column)
    if not words or any(word.lower() not in MARKS for word in words) or not plain_name(column):
        return False
    return plain_name(column) not in _NO_LABELS and any(MARKS[word.lower()] == 1 for word in words)


def meanings_of(table: FolderTable, columns: Sequence[str]) -> dict[str, int]:
    """What the words of columns of labels say: numbers in all their spellings, words as they stand."""
    words = sorted({word for column in columns for word in table.words(column)})
    return {mark: value for mark, value in MARKS.items() if not mark.isalpha()} | {
        word: MARKS[word.lower()] for word in words
    }


def is_text(table: FolderTable, column: str) -> bool:
    """Whether a column has sentences: more than one, and long ones."""
    words = table.words(column)
    return bool(words) and sum(map(len, words)) > _LONG * len(words) and len(words) > 1


def list_in(words: Mapping[str, int]) -> tuple[dict[str, Any], set[str]] | None:
    """How a cell lists names, and which there are; ``None`` where each cell is one name."""
    if words and all(word.startswith("[") and word.endswith("]") for word in words):
        names = {name.strip(" '\"") for word in words for name in word.strip("[]").split(",")}
        return {"use": "json-list" if any('"' in word for word in words) else "python-list"}, names - {""}
    for mark in (LISTED, "|", ";", ","):
        if any(mark in word for word in words):
            names = {name for word in words for name in word.split(mark)}
            return {} if mark == LISTED else {"split": mark}, names - {""}
    return None


def shared_observation(name: str, *, at_a_loss: bool = False) -> tuple[str, str] | None:
    """The shared observation that releases take a finding of this name for, and what is lost: nothing by default."""
    terms = (term for vocabulary in VOCABULARIES.values() for term in vocabulary.terms)
    same = (term for term in terms if plain_name(term.name) == plain_name(name) and bool(term.loss) is at_a_loss)
    return next(((term.stem, term.loss) for term in same), None)
